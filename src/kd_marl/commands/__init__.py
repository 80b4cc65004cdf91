"""The sub-commands of `kd-marl`, one module each."""
