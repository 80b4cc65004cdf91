"""Expert episodes whose numbers tell which episode and step they are, and buffers of them."""

from __future__ import annotations

import torch

from kd_core.artifacts.expert_buffer import ExpertBuffer, ExpertBufferWriter, check_buffer

LIMIT, AGENTS, ACTIONS, OBS, STATE, HIDDEN = 4, 2, 3, 5, 7, 6


def facts(**changes):
    base = {
        "task": "toy",
        "env_args": {"key": "toy"},
        "common_reward": True,
        "reward_scalarisation": "sum",
        "n_agents": AGENTS,
        "n_actions": ACTIONS,
        "obs_size": OBS,
        "state_size": STATE,
        "episode_limit": LIMIT,
        "hidden_dim": HIDDEN,
        "teacher": {"path": "zoo/toy", "sha256": {"agent.th": "aa"}},
        "seed": 1,
        "host": "epymarl_lite",
        "command": "python src/main.py --config=kd_export",
    }
    return {**base, **changes}


def episodes(first, count, rewards=1):
    """Episodes first..first+count-1, tagged: state = obs = 100 * episode + step, lengths 1, 2, .. in turn."""
    number = torch.arange(first, first + count)
    tag = (100 * number[:, None] + torch.arange(LIMIT + 1)).float()
    length = number % LIMIT + 1
    valid = torch.arange(LIMIT) < length[:, None]
    last = torch.arange(LIMIT) == length[:, None] - 1
    truncated = (number % 3 == 0)[:, None] & last
    # Every action but the one after the taken one is available.
    actions = (number[:, None, None] + torch.arange(LIMIT)[:, None] + torch.arange(AGENTS)) % ACTIONS
    avail = torch.ones(count, LIMIT + 1, AGENTS, ACTIONS)
    avail[:, :-1].scatter_(-1, ((actions + 1) % ACTIONS)[..., None], 0.0)
    return {
        "state": tag[..., None].expand(count, LIMIT + 1, STATE),
        "obs": tag[..., None, None].expand(count, LIMIT + 1, AGENTS, OBS),
        "avail_actions": avail,
        "actions": actions,
        "behaviour_log_prob": torch.full((count, LIMIT, AGENTS), -0.5),
        "teacher_logits": tag[:, :-1, None, None].expand(count, LIMIT, AGENTS, ACTIONS),
        "embedding": torch.linspace(-1, 1, HIDDEN).expand(count, LIMIT, AGENTS, HIDDEN),
        "reward": (valid * number[:, None]).float()[..., None].expand(count, LIMIT, rewards),
        "terminated": last & ~truncated,
        "truncated": truncated,
        "length": length,
    }


def write(folder, count, *, shard_episodes=4, resume=False, step=3, **changes):
    """Appends episodes up to `count`, a few at a time."""
    with ExpertBufferWriter(folder, facts(**changes), resume=resume, shard_episodes=shard_episodes) as writer:
        while writer.episodes < count:
            writer.append(episodes(writer.episodes, min(step, count - writer.episodes)))
    return folder


def assert_holds(folder, count):
    """The buffer is sound and holds the tagged episodes 0..count-1, each once, in order."""
    assert check_buffer(folder) is None
    buffer = ExpertBuffer.open(folder)
    assert buffer.episodes == count
    assert buffer.gather(range(count), ("state",))["state"][:, 0, 0].tolist() == [100 * i for i in range(count)]
