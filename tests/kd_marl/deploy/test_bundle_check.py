"""`kd-marl bundle check`: a bundle that contradicts itself is refused in one line, though every hash in it is right."""

from __future__ import annotations

import json
import re
import shutil
import zlib

import jsonschema
import onnx
import pytest

from kd_marl.cli import main
from kd_marl.deploy import command_check, profile, signing
from kd_marl.deploy.check import check_bundle
from kd_onboard.errors import BundleError
from kd_onboard.tensors import weights_digest
from onboard_bundles import change_profile, replace_file


@pytest.fixture(scope="module")
def signing_key(tmp_path_factory):
    return signing.generate(tmp_path_factory.mktemp("keys") / "robots")[0]


def listener(change):
    """A change of the profile's second agent."""
    return lambda folder: change_profile(folder, lambda values: change(values["agents"][1]))


def rename_a_weight(folder):
    model = onnx.load(folder / "onnx" / "listener_0.onnx")
    model.graph.initializer[0].float_data[:] = []
    raw = bytearray(model.graph.initializer[0].raw_data)
    raw[0] ^= 1
    model.graph.initializer[0].raw_data = bytes(raw)
    replace_file(folder, "onnx/listener_0.onnx", model.SerializeToString())


def add_a_note(folder):
    model = onnx.load(folder / "onnx" / "listener_0.onnx")
    model.doc_string = "the teacher's weights: ..."
    replace_file(folder, "onnx/listener_0.onnx", model.SerializeToString())


def change_a_number_in_c(folder):
    text = (folder / "c" / "listener_0" / "kd_listener_0_weights.inc").read_text()
    changed, count = re.subn(r"(0x1\.)([0-9a-f])", lambda m: m[1] + ("0" if m[2] != "0" else "1"), text, count=1)
    assert count == 1
    replace_file(folder, "c/listener_0/kd_listener_0_weights.inc", changed.encode())


def change_the_contract(folder):
    path = "onnx/listener_0.onnx"
    model = onnx.load(folder / path)
    (state,) = (entry for entry in model.metadata_props if entry.key == "kd_marl.state")
    state.value = state.value.replace("0.0", "1.0")
    replace_file(folder, path, model.SerializeToString())


def change_what_is_loaded(folder):
    """One weight, and the CRC with it."""
    path = "c/listener_0/kd_listener_0_weights.bin"
    data = bytearray((folder / path).read_bytes())
    data[60] ^= 1
    data[-4:] = zlib.crc32(data[:-4]).to_bytes(4, "little")
    replace_file(folder, path, bytes(data))


def change_the_test(folder):
    path = "c/listener_0/kd_listener_0_test.inc"
    text = (folder / path).read_text()
    head, _, actions = text.rpartition("= {\n    ")
    replace_file(folder, path, f"{head}= {{\n    {1 if actions[0] == '0' else 0}{actions[1:]}".encode())


def change_the_choice_in_c(folder):
    path = "c/listener_0/kd_listener_0.c"
    text = (folder / path).read_text()
    assert "logits[action] > logits[best]" in text
    replace_file(folder, path, text.replace("logits[action] > logits[best]", "logits[action] < logits[best]").encode())


def exchange_features(folder):
    """The order of features in ONNX and C is no longer the profile's."""

    def change(values):
        features = values["agents"][1]["features"]
        features[0], features[1] = features[1], features[0]

    change_profile(folder, change)


def change_int8(folder):
    values = json.loads((folder / "profile.json").read_text())
    path = values["agents"][1]["onnx_int8"]
    model = onnx.load(folder / path)
    weight = next(t for t in model.graph.initializer if t.name.endswith("_quantized") and len(t.dims) == 2)
    weight.raw_data = bytes(255 - byte for byte in weight.raw_data)
    replace_file(folder, path, model.SerializeToString(deterministic=True))


def exchange_programs(folder):
    def change(values):
        one, other = values["agents"]
        one["c"], other["c"] = other["c"], one["c"]

    change_profile(folder, change)


def exchange_models(folder):
    def change(values):
        one, other = values["agents"]
        one["onnx"], other["onnx"] = other["onnx"], one["onnx"]

    change_profile(folder, change)


def add_a_file(folder):
    replace_file(folder, "weights/critic.safetensors", (folder / "weights/listener_0.body.safetensors").read_bytes())


def add_a_source(folder):
    path = "c/listener_0/extra.c"
    replace_file(folder, path, b"int extra;")
    listener(lambda agent: agent["c"]["sources"].append(path))(folder)


CONTRADICTIONS = {
    r"has flops_per_decision \d+, the profile says 7": listener(lambda agent: agent.update(flops_per_decision=7)),
    r"has flash_bytes \d+, the profile says 100": listener(lambda agent: agent.update(flash_bytes=100)),
    r"has ram_bytes \d+, the profile says 100": listener(lambda agent: agent.update(ram_bytes=100)),
    r"breaks its schema: .*'teacher_logits' was unexpected": listener(lambda agent: agent.update(teacher_logits=[1.0])),
    r"profile\.json\.agents\[1\]\.int8_agreement breaks its schema": listener(
        lambda agent: agent.update(int8_agreement=1.5)
    ),
    r"profile\.json.*breaks its schema: 'shares' is a required": listener(lambda agent: agent.pop("shares")),
    r"onnx/listener_0\.onnx is not the network of agent 1": rename_a_weight,
    r"onnx/listener_0\.onnx is not the network": add_a_note,
    r"onnx/listener_0\.onnx is no valid ONNX model": lambda folder: replace_file(
        folder, "onnx/listener_0.onnx", b"\xff" * 99
    ),
    r"onnx/listener_0\.onnx has another kd_marl\.agent in its metadata_props": exchange_models,
    r"c/listener_0/kd_listener_0_weights\.inc does not hold the weights of agent 1": change_a_number_in_c,
    r"agent 0 \('speaker_0'\) has other C files than c/speaker_0/kd_speaker_0\.h and": exchange_programs,
    r"c/listener_0/kd_listener_0\.c is not what this version writes for agent 1": change_the_choice_in_c,
    r"c/listener_0/kd_listener_0\.h is not what this version writes for agent 1": lambda folder: replace_file(
        folder, "c/listener_0/kd_listener_0.h", (folder / "c/speaker_0/kd_speaker_0.h").read_bytes()
    ),
    r"onnx/listener_0\.onnx has another kd_marl\.features in its metadata_props": exchange_features,
    r"onnx/listener_0\.onnx has another kd_marl\.state in its metadata_props": change_the_contract,
    r"c/listener_0/kd_listener_0_weights\.bin does not hold the weights of agent 1": change_what_is_loaded,
    r"c/listener_0/kd_listener_0_test\.inc holds steps in which the network does something else": change_the_test,
    r"c/listener_0/kd_listener_0_test\.inc is no list of steps": lambda folder: replace_file(
        folder, "c/listener_0/kd_listener_0_test.inc", b"static int kd_listener_0_test_actions;\n"
    ),
    r"onnx/listener_0\.int8\.onnx is not the network of agent 1": change_int8,
    r"has the int8_scope 'everything', which is not one": listener(lambda agent: agent.update(int8_scope="everything")),
    r"agent 1 \('listener_0'\) has other C files than c/listener_0/kd_listener_0\.h and": add_a_source,
    r"c/kd_team\.h is not what this version writes": lambda folder: replace_file(
        folder, "c/kd_team.h", (folder / "c/kd_team.h").read_bytes() + b"int surplus;\n"
    ),
    r"c/speaker_0/kd_speaker_0\.h is not what this version writes": lambda folder: change_profile(
        folder, lambda values: values.update(on_fault="hold")
    ),
    r"no agent uses weights/critic\.safetensors": add_a_file,
}


@pytest.mark.parametrize("message", CONTRADICTIONS)
def test_a_bundle_that_contradicts_itself_is_refused(tiny_bundle, tmp_path, message):
    folder = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, folder)
    CONTRADICTIONS[message](folder)
    with pytest.raises(BundleError, match=message) as caught:
        check_bundle(folder)
    assert "\n" not in str(caught.value)


VERSIONS = {
    "a package that nobody has": {"nothing": "1"},
    "another kd-marl": {"kd-marl": "0.0.1"},
    "another onnxruntime": {"onnxruntime": "0.1"},
    "the installed ones": {},
}


@pytest.mark.parametrize("versions", VERSIONS.values(), ids=VERSIONS)
@pytest.mark.parametrize("change", [change_the_choice_in_c, change_a_number_in_c, change_int8])
def test_programs_are_compared_whatever_versions_the_profile_names(
    tiny_bundle, tmp_path, capsys, change, versions, signing_key
):
    folder = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, folder)
    change_profile(folder, lambda values: values["provenance"]["versions"].update(versions))
    check_bundle(folder)
    change(folder)
    assert main(["bundle", "check", str(folder)]) == 1
    assert main(["bundle", "sign", str(folder), "--key", str(signing_key)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.startswith("faulty: ") and "listener_0" in line for line in lines)
    assert not (folder / "signature.json").exists()


def test_a_signature_is_of_the_bytes_that_were_checked(tiny_bundle, tmp_path, monkeypatch, signing_key):
    """The profile is exchanged between the check and the signature."""
    folder = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, folder)

    def checked(path):
        bundle = check_bundle(path)
        change_profile(folder, lambda values: values.update(on_fault="hold"))
        return bundle

    monkeypatch.setattr(command_check, "check_bundle", checked)
    assert main(["bundle", "sign", str(folder), "--key", str(signing_key)]) == 0
    assert main(["bundle", "verify", str(folder), "--key", str(signing_key.with_suffix(".pub"))]) == 1


def flip_a_bit(folder):
    path = folder / "onnx" / "speaker_0.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


DAMAGE = {
    "onnx/speaker_0.onnx is damaged": flip_a_bit,
    "of format 'kd-marl/student-bundle' version 2": lambda folder: change_profile(
        folder, lambda values: values.update(version=2)
    ),
    "describes 1 agents": lambda folder: change_profile(folder, lambda values: values["agents"].pop()),
    "lacks weights/listener_0.aligner.safetensors": lambda folder: (
        folder / "weights" / "listener_0.aligner.safetensors"
    ).unlink(),
    "has a file that its profile does not list": lambda folder: (folder / "c" / "extra.c").touch(),
    "has a folder that its profile does not list: more": lambda folder: (folder / "more").mkdir(),
    "its checksum is another": lambda folder: (folder / "profile.json").write_text(
        (folder / "profile.json").read_text().replace("world units", "world_units", 1)
    ),
}


@pytest.mark.parametrize("message", DAMAGE)
def test_the_command_says_the_fault_in_one_line_and_exits_with_1(tiny_bundle, tmp_path, capsys, message):
    folder = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, folder)
    assert main(["bundle", "check", str(folder)]) == 0
    assert capsys.readouterr().out.startswith("sound: 2 agents of pz-mpe-simple-speaker-listener-v4")
    DAMAGE[message](folder)
    assert main(["bundle", "check", str(folder)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("faulty: ") and message in lines[0]


def test_the_schema_is_a_schema_and_explains_its_fields():
    schema = profile.schema()
    jsonschema.Draft202012Validator.check_schema(schema)

    def objects(node):
        if isinstance(node, dict):
            if node.get("type") == "object" and "properties" in node:
                yield node
            for child in node.values():
                yield from objects(child)
        elif isinstance(node, list):
            for child in node:
                yield from objects(child)

    found = list(objects(schema))
    assert len(found) > 10
    for node in found:
        assert node["additionalProperties"] is False, "nothing slips in that no reader knows"
        assert set(node.get("required", [])) <= set(node["properties"])


def test_a_profile_has_no_field_that_the_schema_does_not_know(tiny_bundle):
    values = json.loads((tiny_bundle / "profile.json").read_text())
    # Messages are described only where agents talk.
    assert set(values) == set(profile.schema()["properties"]) - {"messages"}
    assert set(values["agents"][0]) == set(profile.schema()["$defs"]["agent"]["properties"]) - {"messages"}


def test_every_onnx_file_says_of_itself_what_the_profile_says(tiny_bundle):
    bundle = check_bundle(tiny_bundle)
    for agent in bundle.agents:
        for path in filter(None, (agent.onnx, agent.onnx_int8)):
            told = {entry.key: entry.value for entry in onnx.load(tiny_bundle / path).metadata_props}
            assert (told["kd_marl.task"], told["kd_marl.agent"]) == (bundle.task.name, agent.name)
            features = [{"name": feature.name, "unit": feature.unit} for feature in agent.features]
            assert json.loads(told["kd_marl.features"]) == features
            assert json.loads(told["kd_marl.actions"]) == list(agent.actions)
            state = {"input": "state", "output": "next_state", "shape": ["batch", agent.width], "begins_as": 0.0}
            assert json.loads(told["kd_marl.state"]) == state
            assert told["kd_marl.weights_sha256"] == weights_digest(bundle.weights(agent))
