"""An agent's ONNX and C with int8 weights, kept only where they decide as the float32 network does."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from kd_marl.deploy import replay
from kd_marl.deploy.onnx_graph import policy_model, product_name, quantisable_model
from kd_marl.deploy.weights import Weights
from kd_onboard import int8 as runtime

# Share of decisions, among those where the agent had a choice, at which int8 and float32 must agree.
LEAST_AGREEMENT = 0.99

# What stays float32, from least to most. Raw features come in units of their own, which one scale serves badly; the
# gates, half of a network and more, are followed by a sigmoid and forgive most.
EXCLUDED = {
    "all": (),
    "all but the aligner": ("align",),
    "the gates": ("align", "past", "new", "logits"),
}


@dataclass(frozen=True)
class Quantised:
    """The int8 network that was tried last.

    Attributes:
        model: the ONNX file; None if it agrees too little to be kept.
        agreement: of each agent that runs it, the share of decisions at which it chooses as float32 does; None for an
            agent that had no decision to make.
        scope: which products are int8; None where there was no decision at all, so nothing was tried.
    """

    model: bytes | None
    agreement: tuple[float | None, ...]
    scope: str | None


def quantise_checked(
    weights: Weights, seen: Sequence[replay.Seen], properties: Mapping[str, str] | None = None
) -> Quantised:
    """Quantise as much of a network as `LEAST_AGREEMENT` allows for every agent that runs it.

    Args:
        weights: the network.
        seen: what each of its agents met.
        properties: the file's ``metadata_props``.
    """
    width = len(weights["align.bias"])
    plain = quantisable_model(weights).SerializeToString()
    float32 = [_actions(plain, agent, width) for agent in seen]
    agreement: tuple[float | None, ...] = (None,) * len(seen)
    if not any(agent.acting.any() for agent in seen):
        return Quantised(None, agreement, None)
    for scope, excluded in EXCLUDED.items():
        model = quantise(weights, excluded, properties)
        same = [
            (_actions(model, agent, width) == expected)[agent.acting]
            for agent, expected in zip(seen, float32, strict=True)
        ]
        agreement = tuple(float(equal.mean()) if equal.size else None for equal in same)
        if min(share for share in agreement if share is not None) >= LEAST_AGREEMENT:
            return Quantised(model, agreement, scope)
    return Quantised(None, agreement, scope)


@dataclass(frozen=True)
class Calibrated:
    """The int8 C that was tried.

    Attributes:
        calibration: of its activations; None if it agrees too little to be written.
        agreement: of each agent that runs it, the share of decisions at which it chooses as float32 does, in episodes
            that it was not calibrated on; None for an agent that had no decision to make in them.
    """

    calibration: runtime.Calibration | None
    agreement: tuple[float | None, ...]


def calibrate_checked(weights: Weights, seen: Sequence[replay.Seen]) -> Calibrated:
    """Calibrate the int8 C of a network on every second episode, and compare it with float32 in the others.

    Args:
        weights: the network.
        seen: what each of its agents met.
    """
    inputs, width = weights["align.weight"].shape[1], len(weights["align.bias"])
    met = [agent.features[::2].reshape(-1, inputs) for agent in seen]
    calibration = runtime.calibrate(weights, np.concatenate(met))
    step = replay.int8_step(runtime.quantise(weights, calibration))
    float32 = onnx_step(policy_model(weights).SerializeToString())
    agreement: list[float | None] = []
    for agent in seen:
        acting = agent.acting[1::2]
        if not acting.any():
            agreement.append(None)
            continue
        took = [replay.run(each, agent.features[1::2], agent.available[1::2], width)[1] for each in (step, float32)]
        agreement.append(float((took[0] == took[1])[acting].mean()))
    found = [share for share in agreement if share is not None]
    enough = bool(found) and min(found) >= LEAST_AGREEMENT
    return Calibrated(calibration if enough else None, tuple(agreement))


def quantise(weights: Weights, excluded: tuple[str, ...] = (), properties: Mapping[str, str] | None = None) -> bytes:
    """Return the ONNX file with 8-bit weights, one scale an output, and activations quantised as they come.

    Args:
        weights: the network.
        excluded: outputs of the products that stay float32.
        properties: the file's ``metadata_props``.
    """
    # Imported late: it brings much along, and only an export needs it.
    from onnxruntime.quantization import QuantType, quantize_dynamic

    root = logging.getLogger()
    level = root.level
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "float32.onnx"), Path(folder, "int8.onnx")
        source.write_bytes(quantisable_model(weights).SerializeToString(deterministic=True))
        # It advises a pre-processing step, on the root logger, that graphs as plain as ours do not need.
        root.setLevel(logging.ERROR)
        try:
            quantize_dynamic(
                source,
                target,
                # Unsigned: with signed weights, processors without VNNI saturate sums that others do not.
                weight_type=QuantType.QUInt8,
                per_channel=True,
                nodes_to_exclude=[product_name(output) for output in excluded],
            )
        finally:
            root.setLevel(level)
        model = onnx.load(target)
    if properties:
        onnx.helper.set_model_props(model, dict(properties))
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


def _actions(model: bytes, seen: replay.Seen, width: int) -> np.ndarray:
    """Return a network's actions ``(episodes, time)``, one episode a batch: larger ones would share their scales."""
    step = onnx_step(model)
    rows = [replay.run(step, seen.features[[e]], seen.available[[e]], width)[1] for e in range(len(seen.features))]
    return np.concatenate(rows)


def session(model: bytes) -> onnxruntime.InferenceSession:
    """Open a session on one thread: at these sizes a second one costs more than the network."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def onnx_step(model: bytes) -> replay.Step:
    """Open an agent's ONNX file as a `replay.Step`."""
    opened = session(model)

    def step(features: np.ndarray, available: np.ndarray, state: np.ndarray) -> replay.StepOutcome:
        ports = {"features": features, "available": available, "state": state}
        logits, action, following = opened.run(["logits", "action", "next_state"], ports)
        return logits, action, following

    return step
