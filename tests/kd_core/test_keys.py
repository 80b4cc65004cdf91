"""Every key takes the values that its comment states, in whatever way they are written."""

import os
import shlex

import pytest
from sacred.arg_parser import get_config_updates

from kd_core import keys, yaml_text
from kd_core.config import assemble, parse_command, sacred_words
from kd_core.errors import UserError
from kd_core.host import get_host
from kd_core.keys import Kind, kind_like, kind_of

LARGEST_SEED = 4294967295


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("seed", "7", 7),
        ("seed", "1e3", 1000),
        ("seed", "4294967295", LARGEST_SEED),
        ("batch_size", "2.0", 2),
        ("buffer_size", "2e1", 20),
        ("test_nepisode", "1e1", 10),
        ("own_action", "false", False),
        ("own_action", "TRUE", True),
        ("treat_truncation_as_terminal", "False", False),
        ("lr", "1e-3", 0.001),
        ("lr", "1", 1),
        ("gamma", "None", None),
        ("gamma", "null", None),
        ("teacher", "2024", "2024"),
        ("teacher", "'2024'", "2024"),
        ("expert_buffer", "5", "5"),
        ("local_results_path", "2024", "2024"),
        ("masks", "{0: [V]}", "{0: [V]}"),
        ("masks", "{0: [0, 1]}", "{0: [0, 1]}"),
        ("widths", "[16, 32]", [16, 32]),
        ("widths", "auto", "auto"),
        ("widths", "24", 24),
        ("env_args.key", "None", None),
        ("env_args.time_limit", "25.0", 25),
    ],
)
def test_a_value_is_read_as_its_key_takes_it(key, text, value):
    read = kind_of(key, None).read(key, text)
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("seed", "-1", "a whole number from 0 to 4,294,967,295"),
        ("seed", "4294967296", "a whole number from 0 to 4,294,967,295"),
        ("seed", "99999999999999999999", "a whole number from 0 to 4,294,967,295"),
        ("seed", "1.5", "a whole number from 0 to 4,294,967,295"),
        ("seed", "abc", "a whole number from 0 to 4,294,967,295"),
        ("seed", "'7'", "a whole number from 0 to 4,294,967,295"),
        ("seed", "x1", "a whole number from 0 to 4,294,967,295"),
        ("test_interval", "abc", "a whole number of at least 1"),
        ("learner_log_interval", "None", "a whole number of at least 1"),
        ("runner_processes", "abc", "a whole number of at least 0"),
        ("t_max", "1e30", "a whole number of at least 1"),
        ("t_max", "inf", "a whole number of at least 1"),
        ("lr", "nan", "a number above 0"),
        ("gamma", "1.01", "a number from 0 to 1 or null"),
        ("own_action", "yes", "True or False"),
        ("own_action", "1", "True or False"),
        ("use_rnn", "", "True or False"),
        ("env_args.max_cycles", "None", "a whole number of at least 1"),
        ("reward_scalarisation", "max", "sum or mean"),
        ("local_results_path", "a\0b", "text"),
    ],
)
def test_another_value_is_one_line_that_says_what_was_expected(key, text, expected):
    with pytest.raises(UserError) as caught:
        kind_of(key, None).read(key, text)
    assert str(caught.value).replace("'", "").endswith(f": expected {expected}")
    assert str(caught.value).startswith(f"{key} is ")


def test_a_key_of_no_file_of_ours_takes_values_like_its_default():
    assert kind_of("q_lookahead", 5).read("q_lookahead", "2.5") == 2.5
    assert kind_of("my_flag", True).read("my_flag", "false") is False
    assert kind_of("my_note", "x").read("my_note", "[1, 2]") == [1, 2]
    with pytest.raises(UserError, match="my_flag is 'no': expected True or False"):
        kind_of("my_flag", True).read("my_flag", "no")
    with pytest.raises(UserError, match="q_lookahead is 'many': expected a number"):
        kind_of("q_lookahead", 5).read("q_lookahead", "many")


def test_every_default_is_a_value_that_its_key_takes_and_no_two_comments_differ():
    table = keys.table()
    assert len(table) > 150
    assert {str(table[key]) for key in ("batch_size", "hidden_dim", "t_max")} == {"a whole number of at least 1"}


def test_a_file_of_values_is_read_as_if_it_was_typed(tmp_path):
    path = tmp_path / "values.yaml"
    path.write_text("seed: 1e3\nlr: 1e-4\nt_max: 5\nmasks: {0: [V, L]}\nenv_args:\n  time_limit: 7\nmap: x\n")
    command = parse_command(["--config=kd_student", "--env-config=mpe", "with", "t_max=9", str(path), "-c", str(path)])
    expected = {"seed": "1000.0", "lr": "0.0001", "masks": "{0: [V, L]}", "env_args.time_limit": "7", "map": "x"}
    assert command.updates == {**expected, "t_max": "9"}
    assert shlex.split(command.line)[5:] == [*(f"{k}={v}" for k, v in expected.items()), "t_max=9", "-c", str(path)]
    host = get_host()
    with pytest.raises(UserError, match="unknown key 'map' in 'with'"):
        assemble(host, command)
    path.write_text("use_rnn: 'yes'\n")
    command = parse_command(
        ["--config=iql", "--env-config=mpe", "with", "env_args.key=pz-mpe-simple-spread-v3", str(path)]
    )
    with pytest.raises(UserError, match=r"^use_rnn is 'yes': expected True or False$"):
        assemble(host, command)
    path.write_text("- use_rnn\n")
    with pytest.raises(UserError, match="holds a list"):
        parse_command(["--config=iql", "--env-config=mpe", "with", str(path)])


@pytest.mark.parametrize(
    "words", [["env_args=5"], ["limits='lha'", "mac=basic_mac"], ["limits='lha'", "mac='basic_mac'"]]
)
def test_a_group_of_keys_and_quoted_values_are_one_line(words):
    line = ["--config=iql", "--env-config=mpe", "with", "env_args.key=pz-mpe-simple-spread-v3", *words]
    with pytest.raises(UserError, match=r"env_args is a group of keys|limits=lha gives every agent a network"):
        assemble(get_host(), parse_command(line))


def test_an_annotation_counts_for_the_keys_that_follow_each_other():
    lines = ["# Both. [whole >= 1]", "a: 1", "b: 2", "", "# Nothing.", "c: 3", "d:", "  # Deep. [text]", "  e: x"]
    text = "\n".join([*lines, "per_env:", "  one:", "    # In one environment. [null]", "    f: 1"])
    assert dict(keys.stated(text)) == {"a": "whole >= 1", "b": "whole >= 1", "d.e": "text", "f": "null"}
    with pytest.raises(ValueError, match="no such bounds"):
        Kind.parse("whole about 3")
    assert kind_like(1, 2.0, None) == Kind.parse("number | null")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_yaml_is_read_with_a_byte_order_mark_or_carriage_returns(tmp_path, encoding, end):
    path = tmp_path / "x.yaml"
    path.write_bytes(end.join(["lr: 1e-3", "note: süß"]).encode(encoding))
    assert yaml_text.read_mapping(path) == {"lr": 0.001, "note": "süß"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"- a\n- b\n", "holds a list: expected lines of the form 'key: value'"),
        (b"plain words\n", "holds 'plain words': expected lines of the form 'key: value'"),
        (b"a: 1\na: 2\n", r"is no valid YAML at line 2 \('a' is there twice\): correct the file"),
        (b"a: [1\n", "is no valid YAML at line"),
        ("a: süß".encode("latin-1"), "it is no text in UTF-8; save it in that encoding"),
        ("a: 1".encode("utf-16"), "it is no text in UTF-8; save it in that encoding"),
        (b"a: 2024-99-99\n", "is no valid YAML"),
        (b"&a {b: *a}\n", "is no valid YAML"),
        (b"a: " + b"[" * 900 + b"]" * 900, "is no valid YAML"),
        (b"a: 0x" + b"f" * 5000, "is no valid YAML"),
        (b"a: [1]\na: [1]\n", "'a' is there twice"),
    ],
)
def test_what_is_no_configuration_is_one_line_with_file_and_place(tmp_path, content, reason):
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=reason) as caught:
        yaml_text.read_mapping(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_key_may_have_the_same_value_twice():
    # EPyMARL's own vdn.yaml states use_rnn twice.
    text = "use_rnn: False\nmixer: vdn\nuse_rnn: False\n"
    assert yaml_text.parse(text, "vdn.yaml") == {"use_rnn": False, "mixer": "vdn"}


@pytest.mark.parametrize("word", ["12e4abc9f", "3e5z", "5e1_vs_5e1", "0e1/run"])
def test_a_word_that_begins_like_a_number_stays_a_word(word):
    assert yaml_text.parse(f"a: {word}", "x.yaml") == {"a": word}


def test_a_number_too_long_for_python_to_write_is_one_line():
    with pytest.raises(UserError, match=r"^t_max is '0xf+\.\.\.: expected a whole number of at least 1$"):
        keys.table()["t_max"].read("t_max", "0x" + "f" * 5000)


def test_an_empty_file_states_nothing(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("# nothing\n")
    assert yaml_text.read_mapping(path) == {}


def test_sacred_is_given_each_value_so_that_it_reads_the_same():
    words = ["-c", "seed=x", "with", "seed=1e3", "own_action=false", "-n", "lr=1", "teacher=2024", "masks={0: [V]}"]
    command = parse_command(["--config=kd_student", "--env-config=mpe", *words])
    typed = {"seed": 1000, "own_action": False, "teacher": "2024", "masks": "{0: [V]}"}
    assert sacred_words(command, typed) == [
        *("-c", "seed=x", "with", "seed=1000", "own_action=False", "-n", "lr=1"),
        *("teacher='2024'", "masks='{0: [V]}'"),
    ]
    updates, _ = get_config_updates(sacred_words(command, typed)[3:5] + sacred_words(command, typed)[7:])
    assert updates == typed


@pytest.mark.parametrize("words", [["t_max"], ["t_max", "=", "50"], ["t_max", "= 50"], ["=50"], ["50"]])
def test_a_word_without_key_or_value_is_one_line_that_says_how_they_are_written(words):
    with pytest.raises(
        UserError, match=r"in 'with' has no (key|value): write key=value without spaces, such as t_max=50"
    ):
        parse_command(["--config=iql", "--env-config=mpe", "with", *words])


@pytest.mark.skipif("EPYMARL_HOME" in os.environ, reason="a checkout has them")
@pytest.mark.parametrize("name", ["coma", "maddpg_ns", "qtran"])
def test_an_algorithm_of_epymarl_alone_names_the_way_to_it(name):
    with pytest.raises(UserError, match=f"--config={name} needs EPyMARL itself.*set EPYMARL_HOME=/path/to/epymarl"):
        assemble(get_host(), parse_command([f"--config={name}", "--env-config=mpe", "with", "env_args.key=x"]))
