"""What wraps EPyMARL's loop: registration, preparation, the end of a run, Sacred's observer."""
