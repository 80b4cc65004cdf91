"""Files that lie: each ends in one line, whatever their hashes say, and never in a traceback or a full memory."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct

import pytest

import tagged_episodes
from kd_core import files
from kd_core.artifacts.expert_buffer import ExpertBuffer, check_buffer
from kd_core.errors import UserError

HUGE = "1" + "0" * 400


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 2}',
        '{"b": {"a": 1, "a": 1}}',
        f'{{"a": {HUGE}}}',
        f'{{"a": -{HUGE}}}',
        '{"a": 1e999}',
        '{"a": [2e400]}',
    ],
    ids=["twice", "twice inside", "huge", "below", "infinite", "infinite inside"],
)
def test_json_that_programs_read_differently_is_refused(tmp_path, text):
    file = tmp_path / "facts.json"
    file.write_text(text)
    with pytest.raises(UserError, match=r"facts\.json is damaged") as caught:
        files.read_json(file)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.fixture(scope="module")
def buffer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("buffers") / "buffer"
    tagged_episodes.write(folder, 10)
    return folder


def reseal(folder, header, data):
    """A shard with another header, and its hash and size in `buffer.json`."""
    path = sorted(folder.glob("shard-*.safetensors"))[0]
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    facts = json.loads((folder / "buffer.json").read_text())
    content = path.read_bytes()
    facts["shards"][0].update(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
    (folder / "buffer.json").write_text(json.dumps(facts))


def shard(folder):
    path = sorted(folder.glob("shard-*.safetensors"))[0]
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def overlap(header, data):
    """One tensor lies upon another of its size: its own bytes are left unread."""
    by_size = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        by_size.setdefault(end - begin, []).append(name)
    first, second = next(names for names in by_size.values() if len(names) > 1)[:2]
    last = max(header, key=lambda name: header[name]["data_offsets"][1])
    moved, other = (first, second) if first != last else (second, first)
    header[moved]["data_offsets"] = header[other]["data_offsets"]
    return header


def double(header, data):
    text = json.dumps(header)
    return (text[:-1] + ', "length": ' + json.dumps(header["length"]) + "}").encode()


@pytest.mark.parametrize("change", [overlap, double])
def test_tensors_that_overlap_or_are_named_twice_are_refused(buffer, tmp_path, change):
    folder = shutil.copytree(buffer, tmp_path / "buffer")
    header, data = shard(folder)
    header.pop("__metadata__", None)
    reseal(folder, change(header, data), data)
    assert "damaged" in check_buffer(folder)
    with pytest.raises(UserError, match="damaged") as caught:
        ExpertBuffer.open(folder).gather(range(10))
    assert "\n" not in str(caught.value)
