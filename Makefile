# `make demo` and `make test` set everything up themselves: they need Python 3.10 to 3.14 and nothing else.
#
#   make setup PYTHON=/path/to/python3.11      another interpreter
#   make setup PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
#                                              torch without CUDA: a much smaller download on Linux
#   make test TESTS="tests/kd_learners/test_losses.py -k kl"   part of the tests

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Each start would compile every module again: torch and JAX alone take seconds.
export PYTHONDONTWRITEBYTECODE :=
.PHONY: help setup demo test test-slow check format lint type docs results pages browsers node omniboard boards clean

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.setup-done
PYTHON ?=
PIP_ARGS ?=
TESTS ?= tests
# Two processes: each test is single-threaded, and some start environment workers of their own.
TEST_JOBS ?= 2
# Trainings at the same time.
RESULTS_JOBS ?= 2
REPORT = $(VENV)/bin/kd-marl report evidence/*.json.xz --to report
CODE := src tests setup.py docs/generate.py $(wildcard benchmarks examples tools)

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

setup: $(STAMP) ## make .venv with the pinned packages (quick when up to date)

# The first of PYTHON, python3.10 to python3.14 and python3 that really starts and has a supported version. Trying each
# one is needed: version managers put names on the PATH that do not run. Python compiles what it imports;
# to compile all that is installed would take as long as to install it.
$(STAMP): requirements.lock requirements-extras.lock requirements-dev.lock setup.py
	@if ! $(PY) -m pip --version >/dev/null 2>&1; then \
	    fits='import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))'; \
	    found=; \
	    for python in "$(PYTHON)" $(if $(PYTHON),,python3.11 python3.12 python3.13 python3.14 python3.10 python3); do \
	        if [ -n "$$python" ] && "$$python" -c "$$fits" >/dev/null 2>&1; then found=$$python; break; fi; \
	    done; \
	    if [ -z "$$found" ]; then \
	        echo "error: kd-marl needs Python 3.10 to 3.14 with its venv module" \
	             "(Debian, Ubuntu: apt install python3-venv); found none$(if $(PYTHON), at $(PYTHON)):" \
	             "install one, or say where it is: make setup PYTHON=/path/to/python3.11" >&2; \
	        exit 1; \
	    fi; \
	    echo "making $(VENV) with $$($$found --version)"; \
	    "$$found" -m venv --clear $(VENV); \
	fi
	$(PY) -m pip install --quiet --disable-pip-version-check --no-compile $(PIP_ARGS) -r requirements-dev.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# SMAX needs Python 3.11 and the extra of that name; without it the particle environments show the same.
# The log goes to a file, so the terminal has the progress bars and the table alone.
DEMO_SMAX := --config=kd_student --env-config=smax with env_args.map_name=3m limits=lh seed=1
DEMO_MPE := --config=kd_student --env-config=mpe with env_args.key=pz-mpe-simple-spread-v3 limits=fo seed=1
DEMO_LOG := results/demo.log
demo: setup ## distil students from a bundled teacher and print the result table (about five minutes)
	@mkdir -p results && rm -f $(DEMO_LOG)
	@echo "a bundled teacher, its expert buffer, then students: about five minutes on two quiet cores; log: $(DEMO_LOG)"
	@KD_MARL_LOG=$(DEMO_LOG) PYTHONWARNINGS="ignore:pkg_resources is deprecated" $(PY) src/main.py \
	    $$($(PY) -c 'import importlib.util as i; print("$(DEMO_SMAX)" if i.find_spec("jaxmarl") else "$(DEMO_MPE)")')

# A bound measured on this machine (marker strict) is no test of the code: run those alone, with -m strict.
PYTEST = OMP_NUM_THREADS=1 $(PY) -m pytest -q -n $(TEST_JOBS) --dist worksteal --timeout 600
test: setup ## every feature once at tiny sizes; part of it: make test TESTS="tests/kd_learners/test_losses.py -k kl"
	$(PYTEST) -m "not slow and not strict" $(TESTS)

test-slow: setup ## the rest: grids of runs, commands of the docs, long fuzzing, kill loops
	$(PYTEST) -m "slow and not strict" $(TESTS)

check: lint type docs ## what CI asks before the tests: lint, format, spelling, imports, types, docs

lint: setup
	$(PY) -m ruff check $(CODE)
	$(PY) -m ruff format --check $(CODE)
	$(PY) -m codespell_lib
	$(VENV)/bin/lint-imports --no-logo --no-cache

type: setup
	$(PY) -m mypy

# MkDocs' own news is hushed; every warning of the build, a dead link or anchor too, ends it.
docs: setup ## the docs as a site in build/site
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --quiet --strict && echo "the docs are in build/site/index.html"

format: setup ## rewrite the code in the project's format
	$(PY) -m ruff check --fix --exit-zero --quiet $(CODE)
	$(PY) -m ruff format $(CODE)

results: setup ## make the runs behind docs/results.md that are missing (hours), keep their evidence, and write the pages
	$(REPORT) --unpack results
	$(VENV)/bin/kd-marl suite run suites/results_smax.yaml --to results/smax --jobs $(RESULTS_JOBS)
	$(VENV)/bin/kd-marl suite run suites/results_mpe.yaml --to results/mpe --jobs $(RESULTS_JOBS)
	$(VENV)/bin/kd-marl report results/smax results/mpe --to report --keep evidence
	$(REPORT) --site .

pages: setup ## write report/, docs/results.md, its figures and the README's block from the evidence
	$(REPORT) --site .

# Tests that look at pages skip themselves where no Chromium is.
browsers: ## install the Chromium of Debian or Ubuntu, in which tests open pages (asks for root)
	@command -v chromium >/dev/null || { sudo=$$(command -v sudo || true); $$sudo apt-get update -q && $$sudo apt-get install -qy chromium; }

node: ## install the Node.js and npm of Debian or Ubuntu, which Omniboard needs (asks for root)
	@command -v npm >/dev/null || { sudo=$$(command -v sudo || true); $$sudo apt-get update -q && $$sudo apt-get install -qy nodejs npm; }

# The database that KD_MARL_MONGO_URL names; without it the tests' stand-in for MongoDB, filled with what is in RESULTS.
OMNIBOARD := build/omniboard
RESULTS ?= results
omniboard: setup $(OMNIBOARD)/.installed ## open Omniboard on the runs in MongoDB, at http://127.0.0.1:9000; Ctrl-C ends it
	@$(PY) tools/omniboard/start.py $(RESULTS)

# What Omniboard's page was built from comes with it, two thirds of the whole, and is not needed.
$(OMNIBOARD)/.installed: $(addprefix tools/omniboard/,package.json package-lock.json .npmrc first-visit.js)
	@command -v npm >/dev/null || { echo "error: Omniboard needs Node.js 18 or newer and npm: make node" >&2; exit 1; }
	@mkdir -p $(OMNIBOARD)
	cp tools/omniboard/package.json tools/omniboard/package-lock.json tools/omniboard/.npmrc $(OMNIBOARD)
	npm ci --prefix $(OMNIBOARD) --loglevel error
	rm -rf $(OMNIBOARD)/node_modules/omniboard/web/node_modules
	cp tools/omniboard/first-visit.js $(OMNIBOARD)/node_modules/omniboard/web/build
	cd $(OMNIBOARD)/node_modules/omniboard/web/build && \
	    sed 's|</head>|<script src="/first-visit.js"></script></head>|' index.html > first-visit.html && mv first-visit.html index.html
	@touch $@

# Compilers, CMake, and emulators of the cores for which tests compile a bundle's C; those tests skip themselves without them.
BOARDS := clang lld cmake gcc-arm-none-eabi qemu-system-arm gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf qemu-system-misc
boards: ## install Debian's or Ubuntu's compilers, CMake and emulators of boards, for their tests (asks for root)
	@dpkg -s $(BOARDS) >/dev/null 2>&1 || { sudo=$$(command -v sudo || true); $$sudo apt-get update -q && $$sudo apt-get install -qy $(BOARDS); }

clean: ## remove .venv and caches; results/ stays
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
