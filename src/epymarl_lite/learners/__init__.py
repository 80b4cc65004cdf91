"""Learners, by the name that the `learner` key gives."""

from epymarl_lite.learners.ppo_learner import PPOLearner
from epymarl_lite.learners.q_learner import QLearner

REGISTRY = {"ppo_learner": PPOLearner, "q_learner": QLearner}
