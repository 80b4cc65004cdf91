"""Grids of runs: from a YAML file to finished runs, on this machine or on a Ray cluster (docs/guides/suites.md)."""
