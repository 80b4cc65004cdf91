"""Sizes against retention: the students of a sweep, and which of them nobody beats."""
