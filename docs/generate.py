"""MkDocs hooks: pages made from the code, and formulas as MathML, so that the site needs nothing from the network."""

from __future__ import annotations

import argparse
import functools
import html
import os
import re
import sys
from pathlib import Path
from typing import Any

import yaml
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from kd_core.keys import table

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"
# The YAML files of the keys' page, in its order: ours, then EPyMARL's as the bundled runtime has them.
KEY_FILES = (
    *(f"config/{name}" for name in ("kd_marl", "algs/kd_teacher", "algs/kd_export", "algs/kd_student", "lha")),
    *("config/envs/mpe", "config/envs/smax", "config/envs/warehouse", "config/envs/own", "epymarl_lite/config/default"),
    *(f"epymarl_lite/config/algs/{name}" for name in ("mappo", "ippo", "iql", "vdn", "qmix")),
    *(f"epymarl_lite/config/envs/{name}" for name in ("gymma", "smaclite", "sc2", "sc2v2")),
)
# Modules named for a key that many read.
READERS = 3
# Columns of a terminal for `--help`: what fits beside the navigation.
COLUMNS = "100"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that nobody writes."""
    for uri, content in (("reference/keys.md", keys_page()), ("reference/command-line.md", command_line_page())):
        files.append(File.generated(config, uri, content=content))
    return files


def on_page_content(text: str, **_: Any) -> str:
    """Turn what arithmatex has marked as formulas into MathML, which browsers draw without a script."""

    def formula(found: re.Match[str]) -> str:
        # The converter does not know the sizes of delimiters; browsers stretch them by themselves.
        tex = re.sub(r"\\big[lr]?(?![a-z])", "", html.unescape(found["tex"]))
        return convert(tex, display="block" if found["open"] == r"\[" else "inline")

    pattern = r'<(?P<tag>span|div) class="arithmatex">(?P<open>\\[(\[])(?P<tex>.*?)\\[)\]]</(?P=tag)>'
    return re.sub(pattern, formula, text, flags=re.DOTALL)


def keys_page() -> str:
    """Every key of our YAML files with its default and its comment."""
    parts = [
        "# Keys\n\n"
        "Generated from the comments of the YAML files in `src/config` and `src/epymarl_lite/config`. Later ones win:\n"
        "`default.yaml`, `kd_marl.yaml`, the environment's, the algorithm's, what that has under `per_env`, then\n"
        "`with key=value` on the command line. A variant (`ctds`, `mappo_ns`, ...) states only how it differs.\n"
        "*Read in* names the modules that ask for the key, the first few where there are many."
    ]
    for name in KEY_FILES:
        path = SOURCE / f"{name}.yaml"
        intro, rows = read_keys(path.read_text(encoding="utf-8"))
        kind = {"algs": f"`--config={path.stem}`. ", "envs": f"`--env-config={path.stem}`. "}.get(path.parent.name, "")
        lines = [f"## {path.stem}", "", kind + _linked(intro), ""]
        for title, keys in rows:
            lines += [f"### {path.stem}: {title}", ""] if title else []
            lines += ["| key | default | takes | meaning | read in |", "|---|---|---|---|---|"]
            lines += [
                f"| {key} | {value} | {_takes(key)} | {_linked(meaning)} | {_readers(key)} |"
                for key, value, meaning in keys
            ]
            lines.append("")
        parts.append("\n".join(lines))
    parts.append("Next: [Command line](command-line.md).")
    return "\n\n".join(parts) + "\n"


def read_keys(text: str) -> tuple[str, list[tuple[str, list[list[str]]]]]:
    """Read a YAML file's keys with their comments.

    Args:
        text: of the file.

    Returns:
        What stands on top of the file, and for each section its title and rows of key, default and meaning. Keys that
        follow each other under one comment share a row.
    """
    intro, _, body = text.partition("\n\n")
    sections: list[tuple[str, list[list[str]]]] = [("", [])]
    comment: list[str] = []
    folders: list[tuple[int, str]] = []
    adjoining = False
    for line in body.splitlines():
        content = line.strip()
        if title := re.fullmatch(r"# -+ (.+?) -+", content):
            sections.append((re.sub(r" *\(docs/.*\)", "", title[1]), []))
            comment = []
        elif content.startswith("#"):
            comment.append(content.lstrip("# "))
        elif content:
            depth = len(line) - len(line.lstrip())
            folders = [folder for folder in folders if folder[0] < depth]
            key, _, value = content.partition(":")
            if not value.strip():
                folders.append((depth, key))
                content = ""
                if comment:
                    sections[-1][1].append([f"`{_path(folders)}`", "", " ".join(comment)])
            else:
                name, value = f"`{_path([*folders, (depth, key)])}`", f"`{_default(value)}`"
                if comment or not (adjoining and sections[-1][1]):
                    sections[-1][1].append([name, value, " ".join(comment)])
                else:
                    row = sections[-1][1][-1]
                    row[0], row[1] = f"{row[0]}, {name}", f"{row[1]}, {value}" if row[1] else value
            comment = []
        adjoining = bool(content) and not content.startswith("#")
    return " ".join(line.lstrip("# ") for line in intro.splitlines()), [part for part in sections if part[1]]


def _takes(keys: str) -> str:
    """Say what the keys of a row take, each different kind once."""
    names = (re.sub(r"^per_env\.\w+\.", "", key.strip("` ")) for key in keys.split(","))
    kinds = (str(table().get(name, "")) for name in names)
    return ", ".join(dict.fromkeys(kind for kind in kinds if kind))


@functools.cache
def _readings() -> dict[str, dict[str, int]]:
    """Find what our modules read of a configuration: key -> module -> how often."""
    found: dict[str, dict[str, int]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        if name.startswith(("envs.", "kd_core.data.")):
            name = name.replace("envs.", "kd_envs.", 1)
        text = path.read_text(encoding="utf-8")
        # args.key, config["key"], the fields of a dataclass of settings, and what an environment is built with.
        keys = re.findall(
            r"""\b_?args(?:\.|, ["'])(\w+)|(?:config|env_args|env_args\.get|config\.get)[\[(]["'](\w+)["']""", text
        )
        keys += re.findall(r"^    (\w+)(): [^=\n]+(?: = .+)?$", text, re.MULTILINE) if "ettings" in text else []
        keys += re.findall(r"^        (\w+)(): [^=\n]+(?: = .+)?,$", text, re.MULTILINE) if "envs" in name else []
        for key in [either or other for either, other in keys] or re.findall(r"""["'](\w+)["']""", text):
            found.setdefault(key, {})[name] = found.get(key, {}).get(name, 0) + 1
    return found


def _readers(keys: str) -> str:
    """Name the modules that read the keys of a row, those that do it most first."""
    counts: dict[str, int] = {}
    for key in keys.split(","):
        for module, times in _readings().get(key.strip("` ").rpartition(".")[2], {}).items():
            counts[module] = counts.get(module, 0) + times
    names = sorted(counts, key=lambda module: (-counts[module], module))
    if not names and keys.startswith("`env_args."):
        return "the environment's package"
    return ", ".join(f"`{name}`" for name in names[:READERS])


def _path(folders: list[tuple[int, str]]) -> str:
    return ".".join(name for _, name in folders)


def _default(value: str) -> str:
    read = yaml.safe_load(value)
    return '""' if read == "" else str(value).strip().strip('"')


def _linked(text: str) -> str:
    meaning = re.sub(r" *\[[^\]]+\]$", "", text).replace("|", r"\|")
    return re.sub(r"docs/([\w/-]+)\.md", r"[\1](../\1.md)", meaning)


def command_line_page() -> str:
    """What `--help` says of every command."""
    os.environ["COLUMNS"] = COLUMNS
    sys.path.insert(0, str(ROOT / "src"))
    from kd_core.config import USAGE
    from kd_marl.cli import build_parser

    parts = [
        "# Command line\n\nGenerated from `--help`.",
        f"## `python src/main.py`\n\n```\n{USAGE}\n```\n\nAll keys: [Keys](keys.md).",
        *_helps(build_parser()),
        "Next: [Python API](python.md).",
    ]
    return "\n\n".join(parts) + "\n"


def _helps(parser: argparse.ArgumentParser, level: int = 2) -> list[str]:
    parts = [f"{'#' * level} `{parser.prog}`\n\n```\n{parser.format_help().strip()}\n```"]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                parts += _helps(child, min(level + 1, 4))
    return parts
