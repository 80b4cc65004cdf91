"""What a run leaves for the next one: teachers and expert buffers, written whole or not at all."""
