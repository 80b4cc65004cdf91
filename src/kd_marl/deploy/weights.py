"""One agent's network as named arrays: what the bundle stores, and what ONNX and C are made from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor, nn

from kd_controllers.talking_net import TalkingStep
from kd_core.costs.flops import AgentStep

# Shapes for d inputs, width w and a actions; gates in the order r, z, n of torch.nn.GRUCell.
#     o = relu(align(x)),  h' = GRU(o, h),  logits = head(h')
# An agent that talks, for i numbers heard and k numbers said: o = relu(align(x) + hear(inbox)),  voice = speak(h')
ALIGNER = ("align.weight", "align.bias", "hear.weight")  # (w, d), (w,), (w, i)
BODY = (
    "gru.weight_ih",  # (3w, w)
    "gru.weight_hh",  # (3w, w)
    "gru.bias_ih",  # (3w,)
    "gru.bias_hh",  # (3w,)
    "head.weight",  # (a, w)
    "head.bias",  # (a,)
    "speak.weight",  # (k, w)
)

Weights = Mapping[str, np.ndarray]


def agent_weights(network: nn.Module) -> dict[str, np.ndarray]:
    """Return the parameters of one agent's network, float32, named as in `ALIGNER` and `BODY`; silent ones lack two."""
    assert isinstance(network, AgentStep), "source.load_student refuses other students"
    assert isinstance(network.rnn, nn.GRUCell), "students are recurrent"
    parameters: dict[str, Tensor] = {
        "align.weight": network.fc1.weight,
        "align.bias": network.fc1.bias,
        "gru.weight_ih": network.rnn.weight_ih,
        "gru.weight_hh": network.rnn.weight_hh,
        "gru.bias_ih": network.rnn.bias_ih,
        "gru.bias_hh": network.rnn.bias_hh,
        "head.weight": network.fc2.weight,
        "head.bias": network.fc2.bias,
    }
    if isinstance(network, TalkingStep):
        talk = {"hear.weight": network.hear, "speak.weight": network.speak}
        parameters |= {name: layer.weight for name, layer in talk.items() if layer is not None}
    return {name: value.detach().numpy().astype(np.float32, copy=True) for name, value in parameters.items()}


def sizes(weights: Weights) -> tuple[int, int, int]:
    """Return the inputs d, width w and actions a of a network."""
    width, inputs = weights["align.weight"].shape
    return inputs, width, len(weights["head.bias"])


def exchanged(weights: Weights) -> tuple[int, int]:
    """Return how many numbers a network hears and says in a step."""
    hear, speak = weights.get("hear.weight"), weights.get("speak.weight")
    return 0 if hear is None else hear.shape[1], 0 if speak is None else len(speak)


def largest_feature(weights: Weights) -> np.float32:
    """Return a bound on the size of features within which no sum in the network overflows float32.

    With |x| <= B, an aligned unit is at most a = (row sum of |align.weight|) B + |bias|, and a gate's input at most
    (row sum of |gru.weight_ih|) a plus what the state, within -1 and 1, and the biases add.
    """
    aligned = max(1.0, float(np.abs(weights["align.weight"]).sum(axis=1, dtype=np.float64).max()))
    gates = max(1.0, float(np.abs(weights["gru.weight_ih"]).sum(axis=1, dtype=np.float64).max()))
    # A quarter leaves room for biases and state, which are far smaller than what is left.
    return np.float32(0.25 * float(np.finfo(np.float32).max) / (aligned * gates))
