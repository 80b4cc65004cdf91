"""Sizes against retention: the students of a sweep, and those that no other beats."""
