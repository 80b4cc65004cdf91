"""Runtime that decides for the agents of a student bundle on a robot; it needs only numpy and one backend.

agent = OnboardAgent.load("bundle", agent=2, backend="c")
agent.reset()
action = agent.act(features, available)

An agent that talks is a `TalkingAgent`: action, outbox = agent.act(features, available, inbox).
"""

from kd_onboard.agent import OnboardAgent, TalkingAgent
from kd_onboard.backend import BACKENDS
from kd_onboard.bundle import Bundle, profile_text, read_bundle
from kd_onboard.errors import BackendError, BundleError, FaultError, OnboardError, SavedError, TrustError
from kd_onboard.sampling import Generator

__all__ = [
    "BACKENDS",
    "BackendError",
    "Bundle",
    "BundleError",
    "FaultError",
    "Generator",
    "OnboardAgent",
    "OnboardError",
    "SavedError",
    "TalkingAgent",
    "TrustError",
    "profile_text",
    "read_bundle",
]
