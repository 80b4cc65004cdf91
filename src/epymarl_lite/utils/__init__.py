"""Helpers of the run: logging, time, checks."""
