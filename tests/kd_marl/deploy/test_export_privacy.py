"""What is central stays at home: no file of a bundle holds numbers of the teacher, a critic or another agent."""

from __future__ import annotations

import json
import re
import shlex
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import safetensors.numpy
import torch

from kd_controllers.student_net import HeteroStudent
from kd_envs.hetero_mask.layouts import plain_layout
from kd_envs.hetero_mask.mask import ObservationMask
from kd_marl.deploy import export as writing
from kd_marl.deploy import int8, replay
from kd_marl.deploy.check import check_bundle
from kd_marl.deploy.weights import ALIGNER, BODY, agent_weights
from kd_marl.runs.student_run import StudentRun
from kd_onboard.bundle import read_bundle

WINDOW = 4


def numbers(path):
    """A file as bytes in which float32 numbers can be searched; the literals of C are made such."""
    data = path.read_bytes()
    if path.suffix not in (".c", ".h", ".inc"):
        return data
    found = re.findall(r"-?(?:0x[0-9a-f.]+p[+-]?\d+|\d+\.\d+)(?=f\b)", data.decode())
    return np.array([float.fromhex(n) if "x" in n else float(n) for n in found], np.float32).tobytes()


def windows(tensor, limit=150):
    """Runs of consecutive numbers of a tensor, along its rows and along its columns, that tell it from others."""
    array = np.asarray(tensor, np.float32)
    for flat in {array.ravel().tobytes(), array.T.ravel().tobytes()}:
        values = np.frombuffer(flat, np.float32)
        starts = range(len(values) - WINDOW + 1)
        for start in list(starts)[:: max(1, len(starts) // limit)]:
            window = values[start : start + WINDOW]
            if len(np.unique(window)) == WINDOW:
                yield window.tobytes()


def holds(data, tensor):
    return any(window in data for window in windows(tensor))


def tensors_in(value):
    """Every tensor somewhere in what torch.load gave, larger than one number."""
    if isinstance(value, torch.Tensor):
        return [value.float().numpy()] if value.numel() >= WINDOW else []
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for child in children for tensor in tensors_in(child)]


def files_of(bundle, agent):
    """The files that one agent's board gets, with what its C includes."""
    inside = [path for path in bundle.profile.files if path.startswith(agent.c.folder + "/")]
    return [bundle.folder / path for path in {*agent.paths, *inside}]


def test_no_file_holds_the_teacher_its_critic_or_the_state_of_training(tiny_student, tiny_bundle):
    secrets = []
    for file in (tiny_student.teacher / "agent.th", tiny_student.teacher / "critic.th"):
        secrets += tensors_in(torch.load(file, weights_only=True))
    training = torch.load(tiny_student.checkpoint / "training.th", weights_only=True)
    secrets += tensors_in(training["optimiser"]) + tensors_in(training["student_roles"])
    assert len(secrets) > 20
    streams = {path: numbers(path) for path in tiny_bundle.rglob("*") if path.is_file()}
    for secret in secrets:
        for path, data in streams.items():
            assert not holds(data, secret), f"{path} holds numbers of a tensor of shape {secret.shape}"


def test_an_agent_s_files_hold_its_own_network_and_no_other_s(tiny_bundle):
    bundle = read_bundle(tiny_bundle)
    for agent in bundle.agents:
        own = bundle.weights(agent)
        others = [bundle.weights(other) for other in bundle.agents if other.index != agent.index]
        for path in files_of(bundle, agent):
            data = numbers(path)
            # The search finds what is there: this is what makes the absence of the others mean something.
            if path.name in (f"{agent.c.prefix}_weights.inc", f"{agent.name}.onnx") or path.suffix == ".safetensors":
                assert any(holds(data, tensor) for tensor in own.values()), path
            for weights in others:
                for name, tensor in weights.items():
                    assert not holds(data, tensor), f"{path} holds another agent's {name}"


def test_nothing_has_a_name_that_is_not_the_policy_s(tiny_bundle):
    bundle = read_bundle(tiny_bundle)
    for agent in bundle.agents:
        stored = [safetensors.numpy.load_file(tiny_bundle / path) for path in agent.weights]
        # A silent agent neither hears nor speaks.
        assert [set(part) for part in stored] == [set(ALIGNER) - {"hear.weight"}, set(BODY) - {"speak.weight"}]
        model = onnx.load(tiny_bundle / agent.onnx)
        told = {entry.key: entry.value for entry in model.metadata_props}
        assert all(key.startswith("kd_marl.") for key in told) and str(tiny_bundle.parent) not in str(told)
        assert not model.doc_string and not model.graph.doc_string
        assert {value.name for value in model.graph.input} == {"features", "available", "state"}
        width = {value.name: value.type.tensor_type.shape.dim[1].dim_value for value in model.graph.input}
        assert width["features"] == agent.inputs == len(agent.features)
    text = (tiny_bundle / "profile.json").read_text()
    assert "critic" not in text.replace("critic.th", "")
    assert {key for key in json.loads(text)["provenance"]["teacher"]} == {"path", "sha256"}


def toy_run(tmp_path, sharing, visible, widths):
    """A student without a run: what an export needs of one."""
    layout = plain_layout("toy-v0", len(visible), 6)
    rows = np.zeros((len(visible), 6), bool)
    for row, indices in zip(rows, visible, strict=True):
        row[list(indices)] = True
    torch.manual_seed(1)
    score = {"return_mean": 1.0, "return_std": 0.5, "win_rate": None}
    summary = {name: score for name in ("student", "teacher", "random")}
    return StudentRun(
        checkpoint=tmp_path / "models" / "token" / "100",
        facts={"task": "toy-v0", "seed": 1, "command": "", "teacher": {"path": "t", "sha256": {"agent.th": "0" * 64}}},
        config={
            "env": "toy",
            "env_args": {},
            "common_reward": True,
            "reward_scalarisation": "sum",
            "sharing": sharing,
            "runner": "episode",
            "batch_size_run": 1,
            "temperature": 1.0,
        },
        summary={**summary, "episodes": 8, "retention": 1.0, "agreement": 0.5, "limits": "lh", "masks_preset": None},
        commit=None,
        record="kd_student/toy-v0/1",
        network=HeteroStudent(widths, visible, 4, sharing).eval(),
        mask=ObservationMask(layout, rows),
        roles=torch.zeros(2, max(widths)),
    )


SHARED = {"none": [[], [], []], "group": [[2], [], [0]], "all": [[1, 2], [0, 2], [0, 1]]}


@pytest.mark.parametrize("sharing", SHARED)
def test_agents_that_share_weights_share_them_on_disk_and_the_profile_says_so(tmp_path, sharing):
    run = toy_run(tmp_path, sharing, [(0, 1, 2), (3, 4), (0, 1, 2)], [8, 8, 8])
    facts = writing.export(run, tmp_path / "bundle", 10, None, writing.Options(latency=False))
    bundle = check_bundle(tmp_path / "bundle")
    assert [agent["shares"]["body"] for agent in facts["agents"]] == SHARED[sharing]
    bodies = {agent.weights[1] for agent in bundle.agents}
    assert len(bodies) == {"none": 3, "group": 2, "all": 1}[sharing]
    assert {path for path in bundle.profile.files if path.endswith("body.safetensors")} == bodies
    assert [agent["shares"]["network"] for agent in facts["agents"]] == [[], [], []], "aligners are never shared"


def test_agents_that_are_equal_throughout_are_one_program(tmp_path):
    run = toy_run(tmp_path, "group", [(0, 1, 2), (3, 4), (0, 1, 2)], [8, 8, 8])
    group = run.network.groups[0]
    with torch.no_grad():
        group.aligner_weight[2] = group.aligner_weight[0]
        group.aligner_bias[2] = group.aligner_bias[0]
    facts = writing.export(run, tmp_path / "bundle", 10, None, writing.Options(latency=False))
    first, other, twin = check_bundle(tmp_path / "bundle").agents
    assert (first.weights, first.onnx, first.c) == (twin.weights, twin.onnx, twin.c)
    assert first.onnx != other.onnx
    assert [agent["shares"]["network"] for agent in facts["agents"]] == [[2], [], [0]]
    assert len(list((tmp_path / "bundle").rglob("*.onnx"))) == 2
    np.testing.assert_array_equal(
        agent_weights(run.network.agent_network(2))["align.weight"],
        safetensors.numpy.load_file(tmp_path / "bundle" / twin.weights[0])["align.weight"],
    )


def test_agents_with_one_program_each_have_an_agreement_of_their_own(tmp_path, monkeypatch):
    """On their own states: what the first of them met says nothing of the others."""
    run = toy_run(tmp_path, "group", [(0, 1, 2), (3, 4), (0, 1, 2)], [8, 8, 8])
    group = run.network.groups[0]
    with torch.no_grad():
        group.aligner_weight[2] = group.aligner_weight[0]
        group.aligner_bias[2] = group.aligner_bias[0]
    obs = np.random.default_rng(0).standard_normal((6, 10, 3, 6)).astype(np.float32)
    acting = np.ones((6, 10, 3), bool)
    acting[:, :, 2] = False
    recorded = replay.Replay(obs, np.ones((6, 10, 3, 4), bool), acting)
    buffer = SimpleNamespace(folder=tmp_path, episodes=6)
    (tmp_path / writing.FACTS_FILE).write_text("{}")
    monkeypatch.setattr(replay, "from_buffer", lambda *_: recorded)
    monkeypatch.setattr(int8, "LEAST_AGREEMENT", 0.0)
    facts = writing.export(run, tmp_path / "bundle", 10, buffer, writing.Options(latency=False))
    first, _, twin = facts["agents"]
    assert first["onnx_int8"] == twin["onnx_int8"] is not None
    assert first["int8_agreement"] > 0.5 and twin["int8_agreement"] is None


def test_a_profile_names_no_folder_of_the_machine_that_trained_it(tiny_student, tiny_bundle):
    """Its command, its teacher and its environment's arguments name files without where they lay."""
    text = (tiny_bundle / "profile.json").read_text()
    assert str(tiny_student.results) not in text and str(tiny_student.teacher) not in text
    provenance = json.loads(text)["provenance"]
    name = "/".join(tiny_student.teacher.parts[-2:])
    assert provenance["teacher"]["path"] == name
    assert f"teacher={name}" in " ".join(shlex.split(provenance["command"]))

    def texts(value):
        if isinstance(value, str):
            yield value
        children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        for child in children:
            yield from texts(child)

    for word in " ".join(texts(json.loads(text))).replace("=", " ").split():
        assert not word.strip("'\"[]{}(),").startswith(("/", "~")), word
