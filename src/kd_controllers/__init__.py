"""Multi-agent controllers: the full-observation teacher and the heterogeneous student."""
