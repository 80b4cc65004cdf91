"""`kd-marl export --target`: a bundle's C as a library of each build system, built where that system is here."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from types import SimpleNamespace

import pytest
import yaml

from kd_marl.cli import main
from kd_marl.deploy import library
from kd_onboard import read_bundle
from onboard_bundles import replace_file, write_bundle, write_talking_bundle

# Categories of Arduino's Library Manager.
CATEGORIES = (
    *("Display", "Communication", "Signal Input/Output", "Sensors", "Device Control", "Timing", "Data Storage"),
    *("Data Processing", "Other"),
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundles") / "spread")


@pytest.fixture(scope="module")
def made(bundle, tmp_path_factory):
    """The library of each target, by its name."""
    folders = {target: tmp_path_factory.mktemp("libraries") / target for target in library.TARGETS}
    for target, folder in folders.items():
        assert main(["export", str(bundle), "--target", target, "--to", str(folder)]) == 0
    return folders


@pytest.fixture(scope="module")
def cmake():
    """Run CMake in a folder; without one the test is skipped."""
    found = shutil.which("cmake")
    if found is None:
        pytest.skip("cmake is not installed")

    def run(folder, *words):
        done = subprocess.run([found, *map(str, words)], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.mark.parametrize("target", library.TARGETS)
def test_sources_are_the_bundles_and_nothing_is_left_to_fill_in(bundle, made, target):
    folder, profile = made[target], read_bundle(bundle).profile
    sources = {path for path in profile.files if path.startswith("c/") and not path.endswith(".bin")}
    written = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    inside = {f"c/{path.removeprefix('src/')}" for path in written if re.match(r"src/(agent_|kd_team)", path)}
    assert inside == sources
    for path in sources:
        assert written[path.replace("c/", "src/", 1)].read_bytes() == (bundle / path).read_bytes()
    for path, file in written.items():
        if f"c/{path.removeprefix('src/')}" not in sources and not path.endswith("config.cmake.in"):
            assert not re.search(r"@[A-Z_]+@", file.read_text()), path
    assert any("example" in path or "sample" in path for path in written)


def test_cmake_builds_installs_finds_and_runs_it(made, tmp_path, cmake):
    """As a package that is installed, and as a folder of another build."""
    root, package = tmp_path / "root", tmp_path / "package"
    cmake(tmp_path, "-S", made["cmake"], "-B", package, f"-DCMAKE_INSTALL_PREFIX={root}", "-DKD_AGENTS_EXAMPLE=ON")
    cmake(tmp_path, "--build", package)
    assert re.fullmatch(r"action \d\n", run(package / "examples/agent/kd_agents_example"))
    cmake(tmp_path, "--install", package)
    assert {path.name for path in root.rglob("*.h")} >= {"kd_team.h", "kd_agent_0.h", "kd_agent_config.h"}
    # Only what was installed is left.
    alone = shutil.copytree(made["cmake"] / "examples/agent", tmp_path / "alone")
    cmake(tmp_path, "-S", alone, "-B", tmp_path / "built", f"-DCMAKE_PREFIX_PATH={root}")
    cmake(tmp_path, "--build", tmp_path / "built")
    assert re.fullmatch(r"action \d\n", run(tmp_path / "built/kd_agents_example"))


def run(program):
    return subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout


# What each system's own build does with these calls, for a compiler of this machine.
ESP_IDF = """
function(idf_component_register)
  cmake_parse_arguments(PARSE_ARGV 0 given "" "" "SRCS;INCLUDE_DIRS")
  add_library(component STATIC ${given_SRCS})
  target_include_directories(component PUBLIC ${given_INCLUDE_DIRS})
endfunction()
"""
ZEPHYR = """
set(CONFIG_KD_AGENTS y)
macro(zephyr_include_directories)
  include_directories(${ARGV})
endmacro()
macro(zephyr_library_named name)
  set(the_library ${name})
endmacro()
macro(zephyr_library_sources)
  add_library(component STATIC ${ARGV})
endmacro()
"""


@pytest.mark.parametrize(("target", "calls", "inside"), [("esp-idf", ESP_IDF, "."), ("zephyr", ZEPHYR, "zephyr")])
def test_the_build_files_of_esp_idf_and_zephyr_name_their_sources(made, tmp_path, cmake, target, calls, inside):
    """Their calls are stood in for: neither system can be installed here."""
    (tmp_path / "CMakeLists.txt").write_text(
        f"cmake_minimum_required(VERSION 3.16)\nproject(host C)\n{calls}\nadd_subdirectory({made[target]}/{inside} x)\n"
    )
    cmake(tmp_path, "-B", "build")
    cmake(tmp_path, "--build", "build")
    (built,) = tmp_path.rglob("libcomponent.a")
    symbols = subprocess.run(["nm", str(built)], check=True, capture_output=True, text=True).stdout
    for agent in range(3):
        assert f"T kd_agent_{agent}_act" in symbols and f"T kd_agent_{agent}_test" in symbols


EXAMPLES = {
    "platformio": ("examples/agent/src/main.c", {}),
    "esp-idf": ("examples/agent/main/main.c", {"extra.c": "void app_main(void); int main(void) { app_main(); }"}),
    "zephyr": (
        "samples/agent/src/main.c",
        {"zephyr/sys/printk.h": "#include <stdio.h>\n#define printk printf\n", "extra.c": ""},
    ),
}


@pytest.mark.parametrize("target", EXAMPLES)
def test_every_example_tests_itself_and_acts(made, tmp_path, target):
    path, files = EXAMPLES[target]
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    folder = made[target]
    sources = [str(file) for file in (*sorted((folder / "src").rglob("*.c")), *tmp_path.glob("*.c"))]
    words = ["gcc", "-Wall", "-Wextra", "-Werror", "-O2", "-I", str(folder / "src"), "-I", str(tmp_path)]
    subprocess.run([*words, str(folder / path), *sources, "-o", str(tmp_path / "program")], check=True)
    assert re.fullmatch(r"action \d\n", run(tmp_path / "program"))


def test_the_sketch_of_arduino_tests_itself_and_acts(made, tmp_path):
    """As C++ with what Arduino's core gives a sketch."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    folder = made["arduino"]
    (tmp_path / "main.cpp").write_text(
        "#include <iostream>\n#include <cstdlib>\n"
        "struct { void begin(long) {} template <class T> void print(T x) { std::cout << x; }\n"
        "  template <class T> void println(T x) { std::cout << x << std::endl; } } Serial;\n"
        "void delay(int) {}\n"
        f'#include "{folder}/examples/agent/agent.ino"\n'
        "int main() { setup(); loop(); loop(); }\n"
    )
    include = ["-I", str(folder / "src")]
    for source in sorted((folder / "src").rglob("*.c")):
        subprocess.run(["gcc", *include, "-c", str(source)], cwd=tmp_path, check=True)
    objects = [str(path) for path in sorted(tmp_path.glob("*.o"))]
    command = ["g++", "-Wall", "-Wextra", "-Werror", *include, "main.cpp", *objects, "-o", "program"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert re.fullmatch(r"(action \d\n){2}", run(tmp_path / "program"))


def test_arduinos_rules_are_kept(made):
    """Of its library specification: names, versions, required fields, and where examples lie."""
    folder = made["arduino"]
    lines = (folder / "library.properties").read_text().splitlines()
    fields = dict(line.split("=", 1) for line in lines)
    assert len(fields) == len(lines)
    required = {"name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url", "architectures"}
    assert required <= fields.keys() and all(fields.values())
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_ .-]{0,62}", fields["name"]) and fields["category"] in CATEGORIES
    assert re.fullmatch(r"\d+\.\d+\.\d+", fields["version"])
    assert (folder / "src" / fields["includes"]).is_file()
    # A sketch is named after its folder. No source lies beside `src`, where another layout would be taken.
    for sketch in (folder / "examples").rglob("*.ino"):
        assert sketch.stem == sketch.parent.name
    assert {path.name for path in folder.iterdir()} == {"library.properties", "src", "examples"}


def test_platformios_rules_are_kept(made):
    folder = made["platformio"]
    manifest = json.loads((folder / "library.json").read_text())
    assert re.fullmatch(r"[^:/,@\s]{1,100}", manifest["name"]) and re.fullmatch(r"\d+\.\d+\.\d+", manifest["version"])
    assert len(manifest["description"]) <= 255 and manifest["keywords"] == manifest["keywords"].lower()
    assert (folder / manifest["build"]["srcDir"] / manifest["headers"]).is_file()
    (example,) = manifest["examples"]
    assert all((folder / example["base"] / file).is_file() for file in example["files"])
    assert f"lib_deps = {manifest['name']}=symlink://../..\n" in (folder / "examples/agent/platformio.ini").read_text()


def test_the_manifests_of_esp_idf_and_zephyr_are_kept(made):
    manifest = yaml.safe_load((made["esp-idf"] / "idf_component.yml").read_text())
    assert re.fullmatch(r"\d+\.\d+\.\d+", manifest["version"]) and manifest["dependencies"] == {"idf": ">=5.0"}
    module = yaml.safe_load((made["zephyr"] / "zephyr/module.yml").read_text())
    assert re.fullmatch(r"[A-Za-z0-9_-]+", module["name"])
    assert (made["zephyr"] / module["build"]["cmake"] / "CMakeLists.txt").is_file()
    option = (made["zephyr"] / module["build"]["kconfig"]).read_text()
    assert "config KD_AGENTS\n\tbool " in option
    assert "CONFIG_KD_AGENTS=y\n" in (made["zephyr"] / "samples/agent/prj.conf").read_text()


def test_names_of_a_task_mean_nothing_to_a_build_system():
    task = SimpleNamespace(name='x"\n${ENV}\\: #')
    assert library._plain(task.name) == "x____ENV___ _"
    profile = {"created": "2026-11-03T04:05:06+00:00"}
    assert library._version(SimpleNamespace(profile=SimpleNamespace(provenance=profile))) == "2026.11.3"
    profile["created"] = "yesterday"
    assert library._version(SimpleNamespace(profile=SimpleNamespace(provenance=profile))) == "1.0.0"


def test_a_folder_that_is_taken_or_a_bundle_that_is_not_sound_is_one_line(bundle, tmp_path, capsys):
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "notes.txt").write_text("mine")
    faulty = shutil.copytree(bundle, tmp_path / "faulty")
    replace_file(faulty, "c/agent_0/kd_agent_0.c", b"int main(void) { return 0; }\n")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for words, said in (
        ([bundle, "--to", taken], "is not empty"),
        ([bundle, "--to", taken / "notes.txt"], "is not empty"),
        ([bundle, "--to", tmp_path / "link"], "is not empty"),
        ([bundle, "--to", taken, "--force"], "is not empty"),
        ([tmp_path / "nothing", "--to", tmp_path / "x"], "is no bundle, and --target is for one"),
        ([faulty, "--to", tmp_path / "x"], "c/agent_0/kd_agent_0.c is not what this version writes"),
        ([bundle, "--to", taken / "notes.txt" / "x"], "cannot write"),
    ):
        assert main(["export", *map(str, words), "--target", "cmake"]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and said in lines[0], lines
    assert not (tmp_path / "x").exists() and (taken / "notes.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert main(["export", str(bundle), "--target", "cmake", "--to", str(tmp_path / "empty")]) == 0
    assert (tmp_path / "empty/CMakeLists.txt").is_file()


def test_every_target_has_its_files_and_the_command_names_them(capsys):
    folders = {path.name for path in library._TEMPLATES.iterdir() if path.is_dir()}
    assert folders == set(library.TARGETS)
    with pytest.raises(SystemExit):
        main(["export", "x", "--to", "y", "--target", "msdos"])
    said = capsys.readouterr().err
    assert all(target in said for target in library.TARGETS)


def test_the_example_of_an_agent_that_talks_gives_it_its_messages(tmp_path):
    """Which is the first of the team, and hears and says something; it tests itself first."""
    folder = write_talking_bundle(tmp_path / "bundle")
    for target in library.TARGETS:
        library.write_library(folder, target, tmp_path / target)
        (example,) = (path for path in (tmp_path / target).rglob("*") if path.name in ("main.c", "agent.ino"))
        assert ", inbox, outbox)" in example.read_text() and "static unsigned char inbox[" in example.read_text()
    main_c, src = tmp_path / "cmake/examples/agent/main.c", tmp_path / "cmake/src"
    sources = [str(file) for file in sorted(src.rglob("*.c"))]
    words = ["gcc", "-Wall", "-Wextra", "-Werror", "-I", str(src), str(main_c), *sources, "-o", str(tmp_path / "x")]
    subprocess.run(words, check=True)
    assert re.fullmatch(r"action \d\n", run(tmp_path / "x"))
