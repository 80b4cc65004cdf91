"""A toy teacher's networks, and learners of stage 2 at tiny sizes: plain functions for the tests of the students."""

from __future__ import annotations

import torch

from kd_controllers.hetero_mac import HeteroMAC
from kd_controllers.teacher_mac import TeacherSizes
from kd_learners.central_critic import CriticSizes
from kd_learners.student_learner import StudentLearner
from tiny_stages import Logger, described, scheme_of, stage_args, teacher_facts

MASKS = "0: [0, 1, 2], 1: [0, 1, 2, 4]"


def networks(hidden_dim=16, seed=5):
    """A toy teacher's networks, with outputs far from uniform."""
    torch.manual_seed(seed)
    facts = teacher_facts(hidden_dim=hidden_dim)
    names = ("n_agents", "n_actions", "obs_size", "state_size")
    sizes = {name: facts[name] for name in names}
    agent = TeacherSizes(
        **sizes, hidden_dim=hidden_dim, use_rnn=True, obs_agent_id=True, obs_last_action=False, teacher_input="obs"
    ).build()
    critic = CriticSizes("cv_critic", **sizes, hidden_dim=hidden_dim, obs_individual_obs=False, obs_last_action=False)
    with torch.no_grad():
        agent.fc2.weight.mul_(8.0)
    return agent, critic.build()


def student_args(results, folder, **updates):
    given = {
        "teacher": str(results / "teacher"),
        "expert_buffer": str(results / "buffer"),
        "limits": "fo",
        "masks": MASKS,
        "own_action": False,
        "widths": [8, 12],
        "minibatch_episodes": 8,
        "updates_per_train": 4,
        "t_max": 40,
        "learner_log_interval": 1,
        "save_model": False,
    }
    return stage_args("kd_student", folder, **{**given, **updates})


def make_learner(results, folder, **updates):
    """A learner as the host's loop would build it."""
    args = student_args(results, folder, **updates)
    context = described(args)
    StudentLearner.check_keys(args, context)
    context = StudentLearner.prepare(args, context)
    torch.manual_seed(args.seed)
    mac = HeteroMAC(scheme_of(args), None, args, context.mask)
    return StudentLearner(mac, scheme_of(args), Logger(), args, context)


def weights(learner):
    return {**learner.mac.agent.state_dict(), "student_roles": learner.student_roles.detach()}


def same(ours, theirs):
    return all(torch.equal(value, theirs[name]) for name, value in ours.items())
