"""Finished runs, read back: their identity, results, students and stress tests."""
