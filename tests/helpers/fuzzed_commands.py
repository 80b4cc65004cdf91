"""Random command lines: each must end in a run or in one line that says what is wrong.

    python tests/helpers/fuzzed_commands.py 2000 --seed 1     prints what ended otherwise, exit status 1 if anything did

What the configuration files refuse is tried in this process. What they take is tried in a fork of it: up to where
something would be made, and a part of it (``--runs``) as a whole run at tiny sizes.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# Small enough that a run is a matter of seconds; what a command changes comes behind it.
TINY = {
    "env_args.key": "pz-mpe-simple-speaker-listener-v4",
    **dict.fromkeys(("batch_size_run", "batch_size", "buffer_size", "test_nepisode", "eval_episodes"), 2),
    **{"t_max": 60, "hidden_dim": 8, "runner": "parallel", "use_cuda": False, "seed": 1},
}
TINY_OF = {
    "kd_teacher": {"epochs": 1},
    "kd_export": {"buffer_episodes": 4, "shard_episodes": 4},
    "kd_student": {"buffer_episodes": 4, "shard_episodes": 4, "updates_per_train": 1, "minibatch_episodes": 2},
    "ctds": {"buffer_episodes": 4, "shard_episodes": 4, "updates_per_train": 1, "minibatch_episodes": 2},
    **{name: {"batch_size_run": 1, "runner": "episode"} for name in ("iql", "vdn", "qmix")},
    **{name: {} for name in ("mappo", "ippo")},
}
OTHER_KEYS = (
    "no_such_key",
    "env_args.no_such",
    "env_args",
    "per_env",
    "x.y.z",
    "masks.0",
    "masks.a.b",
    "seed.x",
    "1",
    "a\nb",
)
ENVIRONMENTS = ("mpe", "mpe", "mpe", "gymma", "gymma", "smax", "sc2", "smaclite", "mpee", "", "./x", "/", "none.yaml")
VALUES = (
    *r"""
    abc -1 0 1 1.5 2e1 1e-3 -0.0 nan inf -inf 1e400 99999999999999999999 0x1f 1_000 007 True false FALSE yes None null
    ~ [] [1,2] ['a'] () {} [[[ {a '7' ' a=b = ü %s%n {x} ../x ~nobody/x /dev/null /dev/full/x none.yaml 1;2 lh lha fo
    paper rnn basic_mac hetero_mac controller kd_mappo_student q_learner auto parallel episode vector environment
    soft_policies 2024-01-01 1:30 &a *a 五 1e1e1 -
    """.split(),  # noqa: SIM905  quoted one by one they would fill a page
    *(
        "",
        " ",
        "{0: [V]}",
        "{0: [P, V], 1: [L]}",
        '"x"',
        "a b",
        "x\ny",
        "lambda: 0",
        "True False",
        "x" * 5000,
        "\ufeff5",
    ),
)
# One file a line.
CONTENTS = (
    *(
        line.strip().replace(rb"\n", b"\n")
        for line in rb"""
    # nothing
    - a\n- b
    words
    a: 1
    lr: 1e-3
    name: [x]
    per_env: x
    per_env: {gymma: 3}
    base: kd_student
    base: kd_student\nlr: 1e-3\nenv_args:\n  time_limit: 9
    base: 5
    base: no_such
    base: ./self
    base: [kd_teacher]
    base: iql\nname: mine\nlr: 1e-3
    base: iql\nname: ../up
    base: iql\nlr: fast
    base: iql\nenv_args: 5
    base: iql\nt_max: 1e2
    base: mappo\nmac: hetero_mac
    learner: q_learner
    &a {b: *a}
    a: [1
    a: 1\na: 2
    ? {x: 1}\n: 2
    1: 2
    null: 1
    a: !!python/object/apply:os.getcwd []
    env: gymma\nenv_args: {key: pz-mpe-simple-spread-v3, time_limit: 25}
    env: gymma\nenv_args: {key: CartPole-v1, time_limit: 5}
    env: no\nenv_args: {key: x}
    env_args: {key: 5}
    env_args: []
    env_args: {}
    env_args: {time_limit: null}
    env_args:\n  seed: 3
    seed: -1
    seed: 1e3
    limits: lh
    limits: lha\nwidths: [4, 8]
    masks: {0: [V]}
    masks: [1]
    t_max: x
    resume: true
    use_rnn: 'yes'
    """.strip().splitlines()
    ),
    *(b"", b"\t- x", b"\x00\x01\xff", b"{" * 2000, b"a: 0x" + b"f" * 5000, b"\xef\xbb\xbfbase: iql\r\n"),
    *("base: kd_teacher\n".encode("utf-16"), "note: süß\n".encode("latin-1")),
)
# One way to give flags a line.
FLAGS = [
    line.split()
    for line in """
    -q
    -m
    -m with
    -m x:y
    -c
    -c note
    -F place
    -F
    -p
    -d
    -e
    -b 0
    -b 1
    -l DEBUG
    -l LOUD
    -P 1
    -C no
    -C x
    -u
    -f
    -i 7
    -n name
    -s sqlite://
    -t x
    -S s3://a/b
    --wrong
    -z
    --name=x
    --config=iql
    --config
    --env-config
    -
    --
    print_config
    -du
    --force=1
    -h
    """.strip().splitlines()
]


@dataclass(frozen=True)
class Fuzzed:
    """A command line, the files that it names, and whether it is tried as a whole run."""

    words: tuple[str, ...]
    files: dict[str, bytes]
    whole: bool


def commands(count: int, seed: int, runs: float = 0.05) -> list[Fuzzed]:
    """Make command lines; the same for the same arguments."""
    from kd_core.keys import table

    draw, own = random.Random(seed), _own_keys()
    made = []
    for _ in range(count):
        files: dict[str, bytes] = {}

        def file(name: str, files: dict[str, bytes] = files) -> str:
            files[name] = draw.choice(CONTENTS)
            return name

        algorithm = draw.choice(list(TINY_OF))
        config = draw.choices([algorithm, f"./{file('own.yaml')}", "./own", "iqll", ""], [40, 3, 1, 1, 0.5])[0]
        environment = draw.choices(["mpe", draw.choice(ENVIRONMENTS), f"./{file('env.yaml')}"], [16, 3, 2])[0]
        updates = {**TINY, **TINY_OF[algorithm]}
        words = [f"{key}={value}" for key, value in updates.items() if draw.random() > 0.01]
        for _ in range(draw.choice((0, 1, 1, 1, 2, 3))):
            key = draw.choice(own[algorithm] if draw.random() < 0.85 else [*table(), *OTHER_KEYS])
            fitting = draw.random() < 0.6 and key in table() and table()[key].alternatives
            words.append(f"{key}={_taken(draw, draw.choice(fitting)) if fitting else draw.choice(VALUES)}")
        if draw.random() < 0.15:
            words.insert(draw.randrange(len(words) + 1), file("values.yaml"))
        if draw.random() < 0.05:
            words.append(draw.choice(("t_max", "t_max = 5", "=", "=5", "--x", "none.yaml", ".")))
        flags = draw.choice(FLAGS) if draw.random() < 0.12 else []
        after = draw.random() < 0.5
        line = [f"--config={config}", f"--env-config={environment}", *([] if after else flags), "with", *words]
        line += flags if after else []
        made.append(Fuzzed(tuple(line), files, draw.random() < runs))
    return made


def _own_keys() -> dict[str, list[str]]:
    """Return the keys of each algorithm's configuration."""
    from kd_core import keys
    from kd_core.config import assemble, parse_command
    from kd_core.host import get_host

    words = ["--env-config=mpe", "with", f"env_args.key={TINY['env_args.key']}"]
    return {
        name: ["seed", *dict(keys.flatten(assemble(get_host(), parse_command([f"--config={name}", *words]))))]
        for name in TINY_OF
    }


def _taken(draw: random.Random, kind: Any) -> str:
    """Choose a value that a kind takes, its bounds among them."""
    low = kind.low if kind.low > -1e9 else -1
    low = low + 0.001 if kind.above else low
    return str(
        {
            "choice": lambda: kind.choice,
            "boolean": lambda: draw.choice((True, False)),
            "whole": lambda: int(min(kind.high, low + draw.choice((0, 0, 1, 2, 3, 7)))),
            "number": lambda: min(kind.high, low + draw.choice((0, 0, 0.1, 0.5, 1, 2, 10))),
            "text": lambda: draw.choice(VALUES),
            "list": lambda: draw.choice(([], [1], [2, 2], [4, 8, 16], ["a"], [-1])),
            "mapping": lambda: draw.choice(("{}", "{0: [V]}", "{a: 1}")),
            "null": lambda: None,
        }[kind.name]()
    )


def settle(home: Path) -> None:
    """Keep what commands write, look for and read again within a folder of ours and this process."""
    os.environ.update({"HOME": str(home), "WANDB_MODE": "offline"})
    for name in ("KD_MARL_MONGO_URL", "EPYMARL_HOME"):
        os.environ.pop(name, None)
    from kd_core import yaml_text
    from kd_marl.plugin import launch  # noqa: F401  imported once, for all forks

    read = yaml_text.read_mapping
    cached = functools.cache(read)
    # Our own files do not change.
    yaml_text.read_mapping = lambda path: (
        copy.deepcopy(cached(path)) if ROOT / "src" in Path(path).parents else read(path)
    )


class Fuzzer:
    """Tries command lines in this process and in forks of it.

    Args:
        folder: for the commands' working folders.
        main: takes a command's words and returns its exit status.
        patience: seconds after which a command hangs.
    """

    def __init__(self, folder: Path, main: Callable[[Sequence[str]], int], patience: float = 180.0) -> None:
        from kd_core.host import get_host

        self.folder, self.main, self.patience, self.host, self._names = folder, main, patience, get_host(), 0

    def fault(self, fuzzed: Fuzzed) -> str:
        """Say how a command ends otherwise than in a run or in one line; "" for one that does not."""
        self._names += 1
        # Deep, for what goes some folders up.
        place = self.folder / str(self._names) / "a" / "b" / "c"
        place.mkdir(parents=True)
        for name, content in fuzzed.files.items():
            (place / name).write_bytes(content)
        before = Path.cwd()
        os.chdir(place)
        try:
            return self._read(fuzzed) or self._try(fuzzed, place)
        finally:
            os.chdir(before)
            shutil.rmtree(self.folder / str(self._names), ignore_errors=True)

    def _read(self, fuzzed: Fuzzed) -> str:
        """Read the command as a run would; "refused" where that ends it well."""
        from kd_core.config import assemble, parse_command, sacred_words, typed_updates
        from kd_core.errors import UserError

        if {"-h", "--help"} & set(fuzzed.words):
            return ""
        try:
            command = parse_command(list(fuzzed.words))
            config = assemble(self.host, command)
            updates = typed_updates(config, command)
            sacred_words(command, updates)
        except UserError as error:
            return f"two lines: {error}" if "\n" in str(error) or not str(error) else "refused"
        except Exception:
            return traceback.format_exc()
        return ""

    def _try(self, fuzzed: Fuzzed, place: Path) -> str:
        out, err = place / "said.out", place / "said.err"
        child = os.fork()
        if child == 0:
            self._be(fuzzed, out, err)
        status = _wait(child, self.patience)
        if status is None:
            return f"hangs: still there after {self.patience:.0f} s\n{_end(out)}\n{_end(err)}"
        said = f"exit status {status}\n{_end(out)}\n{_end(err)}"
        if "Traceback" in said or status not in (0, 1, 2):
            return said
        lines = [line for line in err.read_text(errors="replace").splitlines() if line.startswith("error: ")]
        return said if status and len(lines) != 1 else ""

    def _be(self, fuzzed: Fuzzed, out: Path, err: Path) -> None:
        """In the child: be the command."""
        status = 99
        try:
            os.setpgid(0, 0)
            for descriptor, path in ((0, os.devnull), (1, out), (2, err)):
                opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
                os.dup2(opened, descriptor)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            if not fuzzed.whole:
                _stop_before_anything_is_made()
            sys.argv = ["src/main.py", *fuzzed.words]
            status = self.main(fuzzed.words)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1 if end.code else 0
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status or 0)


def _stop_before_anything_is_made() -> None:
    """End a process where its stage would begin to make something."""
    from kd_learners.stage import Stage
    from kd_marl.plugin import lifecycle

    def prepare(*_: object) -> None:
        sys.stderr.flush()
        os._exit(0)

    for stage in (lifecycle.StockAlgorithm, *Stage.__subclasses__()):
        stage.prepare = prepare


def _wait(child: int, patience: float) -> int | None:
    """Wait for a process of its own group; None: it had to be ended."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _end(path: Path) -> str:
    return path.read_text(errors="replace")[-3000:] if path.is_file() else ""


def main() -> int:
    """Try many commands; returns 1 if one ends badly."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=float, default=0.05, help="part of them tried as whole runs")
    parser.add_argument("--from", dest="first", type=int, default=0, help="leave out those before this one")
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT / "src"))
    from kd_marl import train

    faults = refused = 0
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        settle(Path(folder))
        fuzzer = Fuzzer(Path(folder), train.main)
        for number, fuzzed in enumerate(commands(args.count, args.seed, args.runs)):
            if number < args.first:
                continue
            said = fuzzer.fault(fuzzed)
            refused += said == "refused"
            if said not in ("", "refused"):
                faults += 1
                print(f"--- {number}: {fuzzed.words}\n{fuzzed.files}\n{said}", flush=True)
            if number % 100 == 99:
                print(f"{number + 1} commands, {faults} end badly, {time.monotonic() - begun:.0f} s", flush=True)
    print(f"{args.count - args.first} commands, of which {refused} were refused when read; {faults} end badly")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
