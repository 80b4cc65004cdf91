"""Runs in databases: MongoDB beside the files, which stay the record."""
