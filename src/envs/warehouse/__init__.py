"""Warehouse robots (PyPI ``rware``): what their numbers mean, and many warehouses stepped in one call."""
