"""Writes a student bundle: a folder that is there whole, checked, or not at all."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch

from kd_controllers.messages import Radio
from kd_controllers.talking_net import TalkingStudent
from kd_core import files
from kd_core.artifacts.expert_buffer import FACTS_FILE, ExpertBuffer
from kd_core.costs.footprint import WEIGHTS
from kd_core.errors import UserError
from kd_learners.losses import role_log_distribution
from kd_marl.deploy import check, csource, int8, latency, profile, replay, selftest
from kd_marl.deploy.onnx_graph import contract, policy_model
from kd_marl.deploy.program import AgentC, Named, identifiers
from kd_marl.deploy.weights import ALIGNER, BODY, Weights, agent_weights, sizes
from kd_marl.runs.student_run import StudentRun
from kd_onboard.bundle import PROFILE, profile_text, read_bundle
from kd_onboard.int8 import Calibration
from kd_onboard.profile import FORMAT, AgentMessages
from kd_onboard.tensors import weights_digest

# Of the expert buffer, for int8's agreement and for roles.
REPLAYED_EPISODES = 100
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@dataclass(frozen=True)
class Options:
    """What the user chose.

    Attributes:
        int8: try int8 weights; None: for silent students.
        latency: measure decisions on this machine.
        on_fault: ``raise``, ``hold`` or ``noop``.
        sensors: `sensors.measure` of each agent, or None.
        c_weights: ``float32`` or ``int8``, the form of the C; None: what each agent's budget says, else float32.
    """

    int8: bool | None = None
    latency: bool = True
    on_fault: str = "raise"
    sensors: list[list[dict[str, Any]]] | None = None
    c_weights: str | None = None


@dataclass
class _Draft:
    """Files and agents of a bundle that is being written."""

    run: StudentRun
    folder: Path
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)

    def add(self, path: str, data: bytes) -> str:
        """Write a file."""
        assert path not in self.files, f"{path} is written once"
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        files.write_bytes(target, data)
        self.files[path] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        return path

    def tensors(self, agent: str, part: str, weights: Weights) -> str:
        """Write part of a network, or name the file that holds the same numbers already."""
        key = f"{part} {weights_digest(weights)}"
        if key not in self.written:
            data = safetensors.numpy.save({name: np.ascontiguousarray(value) for name, value in weights.items()})
            self.written[key] = self.add(f"weights/{agent}.{part}.safetensors", data)
        return self.written[key]


def export(
    run: StudentRun,
    folder: Path,
    episode_limit: int,
    buffer: ExpertBuffer | None,
    options: Options,
    force: bool = False,
) -> dict[str, Any]:
    """Write a student's bundle.

    Args:
        run: the student.
        folder: where; it must not exist, or hold a bundle that ``force`` replaces.
        episode_limit: steps of an episode of its task.
        buffer: its expert buffer; None: no int8 and no roles.
        options: what to make and to measure.
        force: replace a bundle that is there.

    Returns:
        The profile.

    Raises:
        UserError: the folder is taken, an agent lacks what ``on_fault`` needs, int8 C lacks the buffer, or the disk is
            full.
    """
    check_target(folder, force)
    check_exportable(run, options)
    check_fault_action(run, options.on_fault)
    check_calibration(run, options, buffer)
    replayed = None
    if buffer is not None:
        met = (buffer, *run.more_buffers())
        replayed = replay.joined([replay.from_buffer(of, run.mask, REPLAYED_EPISODES, run.facts["seed"]) for of in met])
    source = None
    if buffer is not None:
        source = {"sha256": files.file_sha256(buffer.folder / FACTS_FILE), "episodes": buffer.episodes}
    facts = profile.team_facts(run, episode_limit, options.on_fault, source)
    with _whole(folder, force) as temporary:
        draft = _Draft(run, temporary)
        facts["agents"] = _agents(draft, replayed, options)
        facts["files"] = draft.files
        facts["provenance"]["machine"] = latency.machine() if options.latency else {}
        _seal(temporary, facts)
        if options.latency:
            bundle = read_bundle(temporary)
            for agent in facts["agents"]:
                agent["latency"] = latency.measure(bundle, agent["index"])
            _seal(temporary, facts)
        check.check_bundle(temporary)
    return facts


def check_fault_action(run: StudentRun, on_fault: str) -> None:
    """See that every agent can do what it shall do with input that it must not act on.

    Raises:
        UserError: an agent has no action that does nothing.
    """
    for i in range(run.mask.n_agents):
        facts = profile.agent_facts(run, i)
        if on_fault == "noop" and facts["noop_action"] is None:
            raise UserError(
                f"on_fault noop needs an action that does nothing, and agent '{facts['name']}' of {run.task} has none: "
                "use --on-fault hold or raise"
            )


def check_calibration(run: StudentRun, options: Options, buffer: ExpertBuffer | None) -> None:
    """Refuse int8 C without an expert buffer to calibrate it on.

    Raises:
        UserError: an agent's C is to be int8, and there is no buffer.
    """
    if buffer is None and any(_c_weights(run, options, i) == "int8" for i in range(run.mask.n_agents)):
        raise UserError(
            "C with int8 weights is calibrated on the expert buffer, and none was found: name it with --buffer, or "
            "give --c-weights float32"
        )


def _c_weights(run: StudentRun, options: Options, agent: int) -> str:
    """Return the form that the C of an agent shall have."""
    budget = (run.facts.get("budget") or [None] * run.mask.n_agents)[agent]
    return options.c_weights or (budget or {}).get("weights", WEIGHTS[0])


def check_exportable(run: StudentRun, options: Options) -> None:
    """Refuse int8 for students that talk.

    Raises:
        UserError: they do, and int8 was asked for.
    """
    int8_c = any(_c_weights(run, options, i) == "int8" for i in range(run.mask.n_agents))
    if isinstance(run.network, TalkingStudent) and (options.int8 or int8_c):
        wrong = "give --c-weights float32" if int8_c else "leave --int8 out"
        raise UserError(f"{run.record} talks, and int8 is for silent students: {wrong}")


def _agents(draft: _Draft, replayed: replay.Replay | None, options: Options) -> list[dict[str, Any]]:
    run = draft.run
    networks = [agent_weights(run.network.agent_network(i)) for i in range(run.mask.n_agents)]
    roles = _roles(run, replayed)
    names = run.mask.layout.agent_names
    ids = identifiers(names)
    # Agents with equal networks and inputs are one program.
    programs: dict[str, list[int]] = {}
    found = []
    for i, weights in enumerate(networks):
        facts = profile.agent_facts(run, i)
        aligner, body = ({name: weights[name] for name in part if name in weights} for part in (ALIGNER, BODY))
        facts["weights"] = [draft.tensors(ids[i], "aligner", aligner), draft.tensors(ids[i], "body", body)]
        form = _c_weights(run, options, i)
        key = f"{weights_digest(weights)} {facts['features']} {facts['actions']} {form} {facts.get('messages')}"
        programs.setdefault(key, []).append(i)
        sensors = options.sensors[i] if options.sensors else []
        found.append({**facts, **roles[i], "latency": {}, "sensors": sensors})
    for members in programs.values():
        first = members[0]
        seen = [] if replayed is None else [replayed.seen(run.mask, i) for i in members]
        shares, calibration = None, None
        if _c_weights(run, options, first) == "int8":
            calibrated = int8.calibrate_checked(networks[first], seen)
            shares, calibration = calibrated.agreement, calibrated.calibration
        made = _models(draft, ids[first], networks[first], found[first], options.on_fault, seen, calibration)
        tried = [{"onnx_int8": None, "int8_agreement": None, "int8_scope": None}] * len(members)
        if options.int8 is not False and seen and not isinstance(run.network, TalkingStudent):
            tried = _int8(draft, ids[first], networks[first], found[first], seen)
        for k, (i, of_agent) in enumerate(zip(members, tried, strict=True)):
            found[i].update(**made, **of_agent)
            if shares is not None:
                found[i]["c"] = {**made["c"], "int8_agreement": _share(shares[k])}
    programs_of = [Named(facts["c"]["folder"], facts["c"]["prefix"]) for facts in found]
    text = csource.team_header(run.task, list(zip(names, programs_of, strict=True)))
    draft.add(csource.TEAM_HEADER, text.encode())
    for facts in found:
        others = [other for other in found if other is not facts]
        facts["shares"] = {
            "network": [other["index"] for other in others if other["weights"] == facts["weights"]],
            "body": [other["index"] for other in others if other["weights"][1] == facts["weights"][1]],
        }
    return found


def _models(
    draft: _Draft,
    name: str,
    weights: Weights,
    facts: Mapping[str, Any],
    on_fault: str,
    seen: Sequence[replay.Seen],
    calibration: Calibration | None,
) -> dict[str, Any]:
    """Return the ONNX and the C of a program, and what it costs if its C is int8."""
    named = Named.of(name)
    messages = AgentMessages.from_dict(facts["messages"]) if "messages" in facts else None
    properties = contract(weights, draft.run.task, facts["name"], facts["features"], facts["actions"], messages)
    model = policy_model(weights, properties, messages).SerializeToString(deterministic=True)
    found = {"onnx": draft.add(f"onnx/{name}.onnx", model)}
    told = (facts["features"], facts["actions"], on_fault, facts["noop_action"], calibration, messages)
    for path, data in csource.all_files(AgentC(weights, named, draft.run.task, facts["name"], *told)).items():
        draft.add(path, data)
    steps = selftest.choose(weights, seen, calibration)
    draft.add(named.test, selftest.text(steps, named, facts["name"]).encode())
    c: dict[str, Any] = {
        "folder": named.folder,
        "prefix": named.prefix,
        "header": named.header,
        "sources": [named.source],
    }
    if calibration is None:
        return {**found, "c": c}
    c["int8"] = {"exponents": list(calibration.exponents), "align_shift": calibration.align_shift}
    return {**found, "c": c, **profile.costs(*sizes(weights), "int8")}


def _int8(
    draft: _Draft, name: str, weights: Weights, facts: Mapping[str, Any], seen: Sequence[replay.Seen]
) -> list[dict[str, Any]]:
    """Return the int8 ONNX of a program, if every agent that runs it agrees, and the facts for each of them."""
    properties = contract(weights, draft.run.task, facts["name"], facts["features"], facts["actions"])
    tried = int8.quantise_checked(weights, seen, properties)
    path = None if tried.model is None else draft.add(f"onnx/{name}.int8.onnx", tried.model)
    return [
        {
            "onnx_int8": path,
            "int8_agreement": _share(share),
            "int8_scope": tried.scope,
        }
        for share in tried.agreement
    ]


def _share(share: float | None) -> float | None:
    return None if share is None else round(share, 6)


@torch.no_grad()
def _roles(run: StudentRun, replayed: replay.Replay | None) -> list[dict[str, Any]]:
    """Return the role that each agent's embeddings show most on the buffer's episodes (Eq. 11), and how clearly."""
    if replayed is None:
        return [{"role": "unknown", "role_share": None}] * run.mask.n_agents
    available, radio = torch.from_numpy(replayed.available), None
    if isinstance(run.network, TalkingStudent):
        radio = Radio(run.network.messages.speaks(available))
    _, embedding = run.network.unroll(torch.from_numpy(replayed.obs), radio)
    shares = role_log_distribution(embedding, run.roles, run.config["temperature"]).exp()
    found = []
    for i in range(run.mask.n_agents):
        acting = torch.from_numpy(replayed.acting[:, :, i])
        mean = shares[:, :, i][acting].mean(0) if acting.any() else shares[:, :, i].mean((0, 1))
        best = int(mean.argmax())
        found.append({"role": f"role {best} of {len(mean)}", "role_share": round(float(mean[best]), 6)})
    return found


def _seal(folder: Path, facts: Mapping[str, Any]) -> None:
    files.write_bytes(folder / PROFILE, profile_text(facts).encode())


def check_target(folder: Path, force: bool) -> None:
    """Refuse a folder that is taken, before minutes are spent on what cannot be written.

    Raises:
        UserError: it exists and is not to be replaced, or is no bundle.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if not force:
        raise UserError(f"{folder} exists: give another folder, or --force to replace the bundle in it")
    profile_file = folder / PROFILE
    if folder.is_symlink() or not profile_file.is_file() or files.read_json(profile_file).get("format") != FORMAT:
        raise UserError(f"{folder} is no student bundle, and --force replaces nothing else: give another folder")


@contextmanager
def _whole(folder: Path, force: bool) -> Iterator[Path]:
    """Give a temporary folder beside ``folder`` that takes its place once the block has ended well."""
    temporary = files.temporary_name(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
    except OSError as error:
        raise UserError(
            f"cannot write into {folder.parent} ({error.strerror or error}): give another folder"
        ) from error
    try:
        yield temporary
        for path in (*temporary.rglob("*/"), temporary):
            files.sync_folder(path)
        try:
            if force and folder.exists():
                _exchange(temporary, folder)
            else:
                os.rename(temporary, folder)
        except OSError as error:
            raise UserError(f"cannot put the bundle at {folder} ({error.strerror or error}): move that away") from error
        files.sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _exchange(one: Path, other: Path) -> None:
    """Swap two folders, in one step where the system can, so that there is a whole bundle at every moment."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is not None:
        if not rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE):
            return
        if (code := ctypes.get_errno()) not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(code, os.strerror(code))
    aside = one.with_name(one.name + "-old")
    os.rename(other, aside)
    os.rename(one, other)
    os.rename(aside, one)
