"""KD-MARL: small, decentralised students from a large multi-agent teacher, as an EPyMARL plug-in."""
