"""How good a trained policy is, and what it costs: the table at the end of a run."""
