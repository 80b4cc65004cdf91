"""An ONNX model is looked at before ONNX Runtime runs it: operators that can fill the memory are refused unrun."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from kd_marl.deploy import int8
from kd_marl.deploy.check import check_bundle
from kd_onboard import BundleError, OnboardAgent, read_bundle
from kd_onboard.onnx_guard import check_model
from onboard_bundles import ACTIONS, replace_file, write_bundle

MODEL = "onnx/agent_0.onnx"


@pytest.fixture
def bundle(tmp_path):
    return write_bundle(tmp_path / "bundle")


def with_nodes(nodes, constants=()):
    """A change that puts nodes before the others, whose result nobody needs but the runtime folds."""

    def change(model):
        for node in reversed(nodes):
            model.graph.node.insert(0, node)
        model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants)
        return model

    return change


def huge_constant(model):
    node = helper.make_node("ConstantOfShape", ["kd_size"], ["kd_huge"])
    return with_nodes([node], [("kd_size", np.array([1 << 20, 1 << 20], np.int64))])(model)


def outer_product(model):
    names = [("kd_a", np.ones((1 << 20, 1), np.float32)), ("kd_b", np.ones((1, 1 << 20), np.float32))]
    return with_nodes([helper.make_node("MatMul", ["kd_a", "kd_b"], ["kd_huge"])], names)(model)


def doubling(model):
    nodes, last = [], "kd_one"
    for place in range(40):
        nodes.append(helper.make_node("Concat", [last, last], [f"kd_{place}"], axis=0))
        last = f"kd_{place}"
    return with_nodes(nodes, [("kd_one", np.ones((1, 1), np.float32))])(model)


def loop(model):
    body = helper.make_graph([], "body", [], [])
    return with_nodes([helper.make_node("Loop", ["", ""], [], body=body)])(model)


def function(model):
    opset = helper.make_opsetid("", 17)
    model.functions.append(helper.make_function("own", "Relu", ["x"], ["y"], [], [opset]))
    return model


def outside_data(model):
    """Its numbers would be read from another file."""
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/hostname")
    return model


def other_domain(model):
    model.graph.node[0].domain = "com.example"
    return model


ATTACKS = [huge_constant, outer_product, doubling, loop, function, outside_data, other_domain]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_model_that_would_fill_the_memory_is_refused_unrun(bundle, attack):
    pytest.importorskip("onnxruntime")
    model = attack(onnx.load(bundle / MODEL))
    replace_file(bundle, MODEL, model.SerializeToString())
    with pytest.raises(BundleError, match=r"onnx/agent_0\.onnx") as caught:
        OnboardAgent.load(bundle, 0, "onnx")
    assert "\n" not in str(caught.value)
    with pytest.raises(BundleError, match=r"onnx/agent_0\.onnx is not the network of agent 0") as caught:
        check_bundle(bundle)


def test_what_an_export_writes_passes(bundle):
    read = read_bundle(bundle)
    for agent in read.agents:
        check_model(read.read(agent.onnx), agent, "model")
        weights = read.weights(agent)
        for excluded in int8.EXCLUDED.values():
            check_model(int8.quantise(weights, excluded), agent, "model")
    assert OnboardAgent.load(bundle, 0, "onnx").act(np.ones(3, np.float32), np.ones(ACTIONS, bool)) in range(ACTIONS)


def test_weights_that_say_they_are_in_the_file_pass_and_those_elsewhere_do_not(bundle):
    read = read_bundle(bundle)
    agent = read.agents[0]
    model = onnx.load_from_string(read.read(agent.onnx))
    for location in (onnx.TensorProto.DEFAULT, onnx.TensorProto.EXTERNAL):
        model.graph.initializer[0].data_location = location
        if location == onnx.TensorProto.DEFAULT:
            check_model(model.SerializeToString(), agent, "model")
        else:
            with pytest.raises(BundleError, match="has constants in another file"):
                check_model(model.SerializeToString(), agent, "model")


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200))
def test_whatever_the_bytes_are_they_are_refused_in_one_line_or_read_to_their_end(data):
    class Agent:
        inputs, width, n_actions, exchanged = 3, 4, 5, (0, 0, 1)

    try:
        check_model(data, Agent, "model")
    except BundleError as error:
        assert "\n" not in str(error)
