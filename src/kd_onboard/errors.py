"""Errors of the runtime; each message is one line: what was wrong, what was expected, what to do."""

from __future__ import annotations

# What a backend's decision returns in place of an action: a feature is not finite or too large, its memory is damaged.
BAD_FEATURE, BAD_STATE = -2, -3


class OnboardError(ValueError):
    """Base class of the errors below."""


class BundleError(OnboardError):
    """The bundle is damaged, incomplete, of another version, or not a bundle."""


class TrustError(OnboardError):
    """Nobody vouches for code that would run, or what should tell who does cannot be read."""


class BackendError(OnboardError):
    """This machine cannot run the chosen backend, or the bundle does not contain it."""


class SavedError(OnboardError):
    """Bytes that an agent was to be restored from are damaged, or of another agent."""


class FaultError(OnboardError):
    """An agent was given input on which it must not act, and the bundle's ``on_fault`` gives no action."""
