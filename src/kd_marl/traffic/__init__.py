"""Waiting times of teachers and students at traffic lights, beside fixed-time and max-pressure control."""
