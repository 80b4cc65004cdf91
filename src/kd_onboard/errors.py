"""What can go wrong, each said in one line: what it was, what was expected, what to do."""

from __future__ import annotations


class OnboardError(ValueError):
    """Any of the errors below."""


class BundleError(OnboardError):
    """The bundle is not what was exported: damaged, incomplete, of another version, or not a bundle."""


class BackendError(OnboardError):
    """This machine cannot run the chosen backend, or the bundle does not contain it."""


class FaultError(OnboardError):
    """An agent was given input on which it must not act, and the bundle's ``on_fault`` names no way out."""
