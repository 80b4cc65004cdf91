"""Learners of stage 1 at tiny sizes, and the batches a host hands them: plain functions for the teachers' tests."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from kd_controllers.teacher_mac import TeacherMAC
from kd_learners.teacher import TeacherLearner
from tiny_stages import ACTIONS, AGENTS, HOST, LIMIT, OBS, STATE, Logger, described, scheme_of, stage_args

# Steps of each episode, and whether it ended for good (else it was cut by its time limit).
ENDINGS = [(LIMIT, False), (2, True), (1, True), (3, False)]


def played(endings=ENDINGS, common_reward=True, seed=0):
    """A host's batch as a runner leaves it: states and actions at 0..l, rewards and endings at 0..l-1."""
    generator = torch.Generator().manual_seed(seed)
    args = SimpleNamespace(
        state_shape=STATE, obs_size=OBS, n_actions=ACTIONS, n_agents=AGENTS, common_reward=common_reward
    )
    preprocess = {"actions": ("actions_onehot", [HOST.OneHot(out_dim=ACTIONS)])}
    batch = HOST.EpisodeBatch(scheme_of(args), {"agents": AGENTS}, len(endings), LIMIT + 1, preprocess=preprocess)
    for row, (length, ended) in enumerate(endings):
        steps = length + 1
        avail = torch.randint(2, (1, steps, AGENTS, ACTIONS), generator=generator, dtype=torch.int)
        avail[..., 0] = 1
        avail[:, -2, 1] = torch.tensor([1, 0, 0], dtype=torch.int)  # agent 1 is dead in the last step
        preference = torch.rand(avail.shape, generator=generator) * avail
        shown = {
            "state": torch.randn(1, steps, STATE, generator=generator),
            "obs": torch.randn(1, steps, AGENTS, OBS, generator=generator),
            "avail_actions": avail,
            "actions": preference.argmax(-1, keepdim=True),
        }
        batch.update(shown, bs=[row], ts=slice(0, steps))
        reward = torch.randn(1, length, 1 if common_reward else AGENTS, generator=generator)
        terminated = torch.zeros(1, length, 1, dtype=torch.uint8)
        terminated[:, -1] = int(ended)
        outcome = {"reward": reward, "terminated": terminated}
        batch.update(outcome, bs=[row], ts=slice(0, length), mark_filled=False)
    return batch


def make_learner(folder, **updates):
    args = stage_args("kd_teacher", folder, **{"epochs": 2, "autocast": "none", **updates})
    context = described(args)
    TeacherLearner.check_keys(args, context)
    return TeacherLearner(TeacherMAC(scheme_of(args), None, args), scheme_of(args), Logger(), args, context)
