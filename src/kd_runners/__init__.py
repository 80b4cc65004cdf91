"""Runners of the plug-in."""
