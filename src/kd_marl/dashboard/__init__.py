"""A local page of all runs, without a database."""
