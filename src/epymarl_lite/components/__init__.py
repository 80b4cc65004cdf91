"""Episode storage, action selection, schedules and running statistics."""
