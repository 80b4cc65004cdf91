"""An agent's network as ONNX, written operator by operator so that each back end gets the form that it runs fastest.

Two graphs of the same function. At these sizes ONNX Runtime spends its time on calling operators, not on arithmetic,
so `policy_model` has as few as possible; `quantisable_model` keeps biases apart from weights, which int8 needs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kd_marl.deploy.weights import Weights, exchanged, sizes
from kd_onboard.messages import thresholds
from kd_onboard.profile import AgentMessages
from kd_onboard.tensors import weights_digest

OPSET, IR_VERSION = 17, 9
UNAVAILABLE_LOGIT = -1e10
# The layers of an agent that talks.
TALK = ("hear", "speak")
BATCH = "batch"

_Constants = dict[str, np.ndarray]
_Nodes = list[onnx.NodeProto]


def contract(
    weights: Weights,
    task: str,
    name: str,
    features: Sequence[Mapping[str, Any]],
    actions: Sequence[str | None],
    messages: AgentMessages | None = None,
) -> dict[str, str]:
    """Return what a file says of itself in its ``metadata_props``: all that is needed to use it without the profile.

    Args:
        weights: the network.
        task: the task's name.
        name: the agent's name.
        features: of the agent, as in the profile.
        actions: their names, None for one that the agent never has.
        messages: what it tells others and hears from them; None: it is silent.
    """
    width = sizes(weights)[1]
    state = {"input": "state", "output": "next_state", "shape": [BATCH, width], "begins_as": 0.0}
    return {
        "kd_marl.format": "kd-marl/onnx-agent",
        "kd_marl.version": "1",
        "kd_marl.task": task,
        "kd_marl.agent": name,
        "kd_marl.features": json.dumps([{"name": row["name"], "unit": row["unit"]} for row in features]),
        "kd_marl.actions": json.dumps(list(actions)),
        "kd_marl.state": json.dumps(state),
        "kd_marl.weights_sha256": weights_digest(weights),
        **({} if messages is None else {"kd_marl.messages": json.dumps(messages.to_dict())}),
    }


def policy_model(
    weights: Weights, properties: Mapping[str, str] | None = None, messages: AgentMessages | None = None
) -> onnx.ModelProto:
    """Build the whole decision for ONNX Runtime.

    ``properties`` are its ``metadata_props``, see :func:`contract`; ``messages`` are those of an agent that talks.

    Inputs: ``features`` (batch, inputs) float32; ``available`` (batch, actions) bool; ``state`` (batch, width) float32,
    zeros at the start of an episode. Outputs: ``logits`` and ``masked_logits`` (batch, actions) float32, the latter
    -1e10 where an action is unavailable; ``action`` (batch,) int64, the best available one; ``next_state``.

    An agent that hears has the input ``inbox`` (batch, numbers) float32 from -1 to 1, 0 where a message is missing. One
    that speaks has the output ``outbox`` (batch, numbers) float32: whether it is its turn, the caller knows.
    """
    constants, nodes = _fused_step(weights)
    bits = 1 if messages is None else messages.number_bits
    model = _decision(weights, *_talking(weights, constants, nodes, bits))
    if properties:
        helper.set_model_props(model, dict(properties))
    return model


def quantisable_model(weights: Weights) -> onnx.ModelProto:
    """Return `policy_model`'s function with plain matrix products, for onnxruntime's quantisation."""
    constants, nodes = _plain_step(weights)
    unfused = []
    for node in nodes:
        if node.op_type == "Gemm":
            left, right, bias = node.input
            product = product_name(node.output[0])
            unfused += [helper.make_node("MatMul", [left, right], [product], name=product)]
            unfused += [helper.make_node("Add", [product, bias], node.output)]
        else:
            unfused.append(node)
    return _decision(weights, constants, unfused)


def product_name(output: str) -> str:
    """Return, for `quantisable_model`, the node of the matrix product that makes this output of the plain step."""
    return f"{output}_product"


def step_constants(weights: Weights) -> dict[str, np.ndarray]:
    """Return the matrices of one step as (in, out) and their biases, by name: what the C program has."""
    found = _plain_step(weights)[0]
    return found | {f"{name}_weight": weights[f"{name}.weight"].T for name in TALK if f"{name}.weight" in weights}


def _plain_step(weights: Weights) -> tuple[_Constants, _Nodes]:
    """Build the step with products as (batch, in) @ (in, out): compilers vectorise their inner loop over outputs."""
    in_r, in_z, in_n = np.split(weights["gru.weight_ih"].T, 3, axis=1)
    of_r, of_z, of_n = np.split(weights["gru.weight_hh"].T, 3, axis=1)
    in_bias, of_bias = np.split(weights["gru.bias_ih"], 3), np.split(weights["gru.bias_hh"], 3)
    constants = {
        "align_weight": weights["align.weight"].T,
        "align_bias": weights["align.bias"],
        "gates_weight": np.block([[in_r, in_z], [of_r, of_z]]),
        "gates_bias": np.concatenate([in_bias[0] + of_bias[0], in_bias[1] + of_bias[1]]),
        "input_weight": in_n,
        "input_bias": in_bias[2],
        "past_weight": of_n,
        "past_bias": of_bias[2],
        "head_weight": weights["head.weight"].T,
        "head_bias": weights["head.bias"],
    }
    node = helper.make_node
    nodes = [
        node("Gemm", ["features", "align_weight", "align_bias"], ["align"]),
        node("Relu", ["align"], ["aligned"]),
        node("Concat", ["aligned", "state"], ["both"], axis=1),
        node("Gemm", ["both", "gates_weight", "gates_bias"], ["gates"]),
        node("Sigmoid", ["gates"], ["open"]),
        node("Split", ["open"], ["reset", "update"], axis=1),
        node("Gemm", ["state", "past_weight", "past_bias"], ["past"]),
        node("Mul", ["reset", "past"], ["kept"]),
        node("Gemm", ["aligned", "input_weight", "input_bias"], ["new"]),
        node("Add", ["new", "kept"], ["mixed"]),
        node("Tanh", ["mixed"], ["candidate"]),
        *_blend(),
    ]
    return constants, nodes


def _fused_step(weights: Weights) -> tuple[_Constants, _Nodes]:
    """Build the step in which every bias but two has become a product.

    The aligner has one more unit, relu(0 x + 1) = 1, so that biases are rows of the weights behind it. That leaves the
    third place of the candidate's Gemm to ``kept``, and ONNX Runtime fuses the activation behind a Gemm into it.
    """
    in_r, in_z, in_n = np.split(weights["gru.weight_ih"].T, 3, axis=1)
    of_r, of_z, of_n = np.split(weights["gru.weight_hh"].T, 3, axis=1)
    in_bias, of_bias = np.split(weights["gru.bias_ih"], 3), np.split(weights["gru.bias_hh"], 3)
    align = weights["align.weight"].T
    constants = {
        "align_weight": np.pad(align, ((0, 0), (0, 1))),
        "align_bias": np.append(weights["align.bias"], np.float32(1.0)),
        "reset_weight": np.concatenate([in_r, [in_bias[0] + of_bias[0]], of_r]),
        "update_weight": np.concatenate([in_z, [in_bias[1] + of_bias[1]], of_z]),
        "input_weight": np.concatenate([in_n, [in_bias[2]]]),
        "past_weight": of_n,
        "past_bias": of_bias[2],
        "head_weight": weights["head.weight"].T,
        "head_bias": weights["head.bias"],
    }
    node = helper.make_node
    nodes = [
        node("Gemm", ["features", "align_weight", "align_bias"], ["align"]),
        node("Relu", ["align"], ["aligned"]),
        node("Concat", ["aligned", "state"], ["both"], axis=1),
        node("Gemm", ["both", "reset_weight"], ["reset_gate"]),
        node("Sigmoid", ["reset_gate"], ["reset"]),
        node("Gemm", ["both", "update_weight"], ["update_gate"]),
        node("Sigmoid", ["update_gate"], ["update"]),
        node("Gemm", ["state", "past_weight", "past_bias"], ["past"]),
        node("Mul", ["reset", "past"], ["kept"]),
        node("Gemm", ["aligned", "input_weight", "kept"], ["mixed"]),
        node("Tanh", ["mixed"], ["candidate"]),
        *_blend(),
    ]
    return constants, nodes


def _talking(weights: Weights, constants: _Constants, nodes: _Nodes, bits: int) -> tuple[_Constants, _Nodes]:
    """Add to the fused step what its weights hear and say, in numbers of so many bits."""
    node, inbox, outbox = helper.make_node, *exchanged(weights)
    found, first = dict(constants), list(nodes)
    if inbox:
        found["hear_weight"] = np.pad(weights["hear.weight"].T, ((0, 0), (0, 1)))
        seen, rest = first[0], first[1:]
        seen.output[0] = "seen"
        first = [seen, node("Gemm", ["inbox", "hear_weight", "seen"], ["align"]), *rest]
    if outbox:
        found["speak_weight"] = weights["speak.weight"].T
        first.append(node("MatMul", ["next_state", "speak_weight"], ["voice"]))
        more, said = _signs() if bits == 1 else _numbers(bits)
        found |= more
        first += said
    return found, first


def _signs() -> tuple[_Constants, _Nodes]:
    """Build the outbox of numbers of one bit."""
    constants = {"zero": np.array(0, np.float32), "one": np.array(1, np.float32), "minus_one": np.array(-1, np.float32)}
    nodes = [
        helper.make_node("GreaterOrEqual", ["voice", "zero"], ["positive"]),
        helper.make_node("Where", ["positive", "one", "minus_one"], ["outbox"]),
    ]
    return constants, nodes


def _numbers(bits: int) -> tuple[_Constants, _Nodes]:
    """Build the outbox of numbers of several bits: each is counted up to its level."""
    node, step = helper.make_node, np.float32(2.0 / (2**bits - 1))
    constants = {
        "changes": thresholds(bits),
        "last": np.array([-1], np.int64),
        "step": np.array(step, np.float32),
        "one": np.array(1, np.float32),
    }
    nodes = [
        node("Unsqueeze", ["voice", "last"], ["numbers"]),
        node("GreaterOrEqual", ["numbers", "changes"], ["reached"]),
        node("Cast", ["reached"], ["ones"], to=TensorProto.FLOAT),
        node("ReduceSum", ["ones", "last"], ["level"], keepdims=0),
        node("Mul", ["level", "step"], ["above"]),
        node("Sub", ["above", "one"], ["outbox"]),
    ]
    return constants, nodes


def _blend() -> _Nodes:
    """Build the end of the step, h' = candidate + update (h - candidate), and the head."""
    node = helper.make_node
    return [
        node("Sub", ["state", "candidate"], ["change"]),
        node("Mul", ["update", "change"], ["carried"]),
        node("Add", ["candidate", "carried"], ["next_state"]),
        node("Gemm", ["next_state", "head_weight", "head_bias"], ["logits"]),
    ]


def _decision(weights: Weights, constants: _Constants, nodes: _Nodes) -> onnx.ModelProto:
    """Build a step with masking and the choice behind it, for any batch."""
    inputs, width, actions = sizes(weights)
    inbox, outbox = exchanged(weights)
    node, float32 = helper.make_node, TensorProto.FLOAT
    heard: list[_Port] = [("inbox", float32, [BATCH, inbox])] if inbox else []
    said: list[_Port] = [("outbox", float32, [BATCH, outbox])] if outbox else []
    choice = [
        node("Where", ["available", "logits", "unavailable_logit"], ["masked_logits"]),
        node("ArgMax", ["masked_logits"], ["action"], axis=1, keepdims=0),
    ]
    return _model(
        [*nodes, *choice],
        [
            ("features", float32, [BATCH, inputs]),
            ("available", TensorProto.BOOL, [BATCH, actions]),
            ("state", float32, [BATCH, width]),
            *heard,
        ],
        [
            ("logits", float32, [BATCH, actions]),
            ("masked_logits", float32, [BATCH, actions]),
            ("action", TensorProto.INT64, [BATCH]),
            ("next_state", float32, [BATCH, width]),
            *said,
        ],
        {**constants, "unavailable_logit": np.array(UNAVAILABLE_LOGIT, np.float32)},
    )


_Port = tuple[str, int, Sequence[str | int]]


def _kind(value: np.ndarray) -> type[np.generic]:
    """Return the type of a constant: whole numbers are axes."""
    return np.int64 if value.dtype.kind == "i" else np.float32


def _model(
    nodes: _Nodes, inputs: Sequence[_Port], outputs: Sequence[_Port], constants: Mapping[str, np.ndarray]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "agent",
        [helper.make_tensor_value_info(*port) for port in inputs],
        [helper.make_tensor_value_info(*port) for port in outputs],
        [
            numpy_helper.from_array(np.ascontiguousarray(value, _kind(value)).reshape(np.shape(value)), name)
            for name, value in constants.items()
        ],
    )
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="kd-marl")
    onnx.checker.check_model(model, full_check=True)
    return model
