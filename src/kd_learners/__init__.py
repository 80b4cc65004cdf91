"""The learners of KD-MARL: teacher, exporter and student, and the pure functions that they are made of."""
