"""What a network costs: FLOPs, bytes, and the hardware that it must fit."""
