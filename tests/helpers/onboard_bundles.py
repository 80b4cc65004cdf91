"""Small student bundles of untrained networks, written by the real export; and ways to damage them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from latency_teams import untrained_run

from kd_controllers.messages import Messages
from kd_controllers.talking_net import TalkingStudent
from kd_envs.hetero_mask.known_layouts import layout_for
from kd_envs.hetero_mask.mask import ObservationMask
from kd_marl.deploy import export as exporting
from kd_onboard import profile_text

TASK, ACTIONS, LIMIT = "pz-mpe-simple-spread-v3", 5, 25
# What each of the three agents sees of its 18 features, and its width.
SEEN = ((0, 1, 2), (0, 1, 2, 3, 6), (4, 5, 6, 7, 8, 9, 10, 11))
WIDTHS = (4, 8, 8)


def student(seed=0):
    """An untrained student whose logits are far from each other."""
    layout = layout_for(TASK, len(SEEN), 18)
    visible = np.zeros((len(SEEN), 18), bool)
    for row, seen in zip(visible, SEEN, strict=True):
        row[list(seen)] = True
    run = untrained_run(TASK, "gymma", ObservationMask(layout, visible), WIDTHS, ACTIONS, seed)
    with torch.no_grad():
        for parameter in run.network.parameters():
            parameter.mul_(2.0)
    return run


def write_bundle(folder: Path, on_fault="raise") -> Path:
    """Export it."""
    options = exporting.Options(int8=False, latency=False, on_fault=on_fault)
    exporting.export(student(), folder, LIMIT, None, options)
    return folder


def change_profile(folder: Path, change) -> None:
    """Let ``change`` edit the parsed profile in place, and seal it again: a bundle that is consistently wrong."""
    profile = json.loads((folder / "profile.json").read_text())
    change(profile)
    (folder / "profile.json").write_text(profile_text(profile))


def replace_file(folder: Path, path: str, data: bytes) -> None:
    """Put other bytes into a file and their sha256 into the profile."""
    (folder / path).write_bytes(data)

    def change(profile):
        profile["files"][path] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}

    change_profile(folder, change)


# 0 and 1 hear each other, 2 hears both, and nobody hears 2.
LINKS = ((0, 1), (0, 2), (1, 0), (1, 2))


def talking_student(messages=None, seed=0):
    """The same that tells what it sees, ten bits a step unless ``messages`` says otherwise."""
    run, messages = student(seed), messages or Messages(10, LINKS)
    torch.manual_seed(seed)
    visible = [run.mask.indices(i) for i in range(run.mask.n_agents)]
    network = TalkingStudent(WIDTHS, visible, ACTIONS, "none", messages).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2.0)
    return dataclasses.replace(run, network=network)


def write_talking_bundle(folder: Path, messages=None, on_fault="raise") -> Path:
    """Export it."""
    options = exporting.Options(latency=False, on_fault=on_fault)
    exporting.export(talking_student(messages), folder, LIMIT, None, options)
    return folder
