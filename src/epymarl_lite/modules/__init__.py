"""Neural networks: agents, critics and mixers."""
