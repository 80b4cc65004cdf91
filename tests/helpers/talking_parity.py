"""A talking team's bundle beside its torch network: the same actions and the same messages, on recorded episodes."""

from __future__ import annotations

import numpy as np
import torch

from kd_controllers.messages import Radio
from kd_controllers.talking_net import bits_of
from kd_onboard import OnboardAgent
from kd_onboard.messages import thresholds

# What rounding decides is not compared: logits and voices that are this close to each other, or to 0.
CLOSE = 1e-4


def random_episodes(run, count, length, seed=0):
    """Observations and availability of a whole team; now and then an agent has one choice."""
    rng = np.random.default_rng(seed)
    agents, actions = run.mask.n_agents, run.network.n_actions
    obs = 2 * rng.standard_normal((count, length, agents, run.mask.obs_size)).astype(np.float32)
    available = rng.random((count, length, agents, actions)) < 0.5
    available[..., 0] |= ~available.any(-1)
    return obs, available


def compared(run, bundle, backend, obs, available, loss=0.0, seed=0):
    """Play every agent of a bundle on episodes, with the messages that the torch network heard.

    Args:
        run: the student.
        bundle: its bundle.
        backend: of kd_onboard.
        obs: ``(episodes, time, agents, features)``, extended and masked.
        available: ``(episodes, time, agents, actions)``.
        loss: probability that a message is lost.
        seed: of the losses.

    Returns:
        Numbers of actions and of bits that were compared, and of those that rounding decides; all others are equal.
    """
    network, messages = run.network, run.network.messages
    episodes, time, agents = available.shape[:3]
    delivered = np.random.default_rng(seed).random((episodes, time, agents, agents)) >= loss
    speaks = messages.speaks(torch.from_numpy(available))
    with torch.no_grad():
        radio = Radio(speaks, torch.from_numpy(delivered).float())
        logits, embedding = network.unroll(torch.from_numpy(obs), radio)
        own = [network.agent_network(i) for i in range(agents)]
        voices = [
            None if step.speak is None else step.speak(embedding[:, :, i, : step.width]).numpy()
            for i, step in enumerate(own)
        ]
    changes = thresholds(messages.number_bits)
    bits = [None if voice is None else bits_of(torch.from_numpy(voice), messages.number_bits) > 0 for voice in voices]
    packed = [None if said is None else np.packbits(said.numpy(), axis=-1, bitorder="little") for said in bits]
    counts = {"actions": 0, "bits": 0, "near": 0}
    for i in range(agents):
        agent = OnboardAgent.load(bundle, i, backend, trust=True)
        seen = np.ascontiguousarray(obs[:, :, i, run.mask.indices(i)])
        ranked = np.where(available[:, :, i], logits[:, :, i].numpy(), -np.inf)
        for e in range(episodes):
            agent.reset()
            for t in range(time):
                inbox, when = [], t - messages.latency
                for speaker in messages.speakers(i):
                    sent = when >= 0 and speaks[e, when, speaker] and delivered[e, t, i, speaker]
                    inbox.append(packed[speaker][e, when].tobytes() if sent else None)
                action, outbox = agent.act(seen[e, t], available[e, t, i], inbox)
                best = ranked[e, t].max()
                if action != ranked[e, t].argmax():
                    assert best - ranked[e, t, action] < CLOSE, (backend, i, e, t, action)
                    counts["near"] += 1
                counts["actions"] += 1
                if voices[i] is None or not speaks[e, t, i]:
                    assert outbox is None, (backend, i, e, t)
                    continue
                said = np.unpackbits(np.frombuffer(outbox, np.uint8), count=messages.bits, bitorder="little") == 1
                other = said != bits[i][e, t].numpy()
                near = np.abs(voices[i][e, t][:, None] - changes).min(1).repeat(messages.number_bits) < CLOSE
                assert near[other].all(), (backend, i, e, t)
                counts["near"] += int(other.sum())
                counts["bits"] += messages.bits
    return counts
