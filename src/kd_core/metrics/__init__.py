"""What a student costs and what it keeps: FLOPs, retention and the result table."""
