"""Retention, and intervals of what was measured."""
