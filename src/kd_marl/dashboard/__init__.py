"""A local page of all runs, without a database: `kd-marl dashboard` (docs/guides/dashboard.md)."""
