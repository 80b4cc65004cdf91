"""Shows what there is and whether it is sound: teachers, expert buffers, masks, this machine."""
