"""Episodes that can be watched: teacher and student side by side."""
