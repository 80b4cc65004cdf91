"""From a trained student to a bundle that a board can run: ONNX and C of each agent, and the profile that says so.

`kd_marl.pareto` stands above this room, since it exports and checks the students of its sweep.
"""
