"""The bundled runtime: EPyMARL's interfaces, configuration keys, file formats and arithmetic, written independently.

Sub-packages carry EPyMARL's names (`components`, `controllers`, `envs`, `learners`, `modules`, `runners`, `utils`), so
that a plug-in finds everything at the same relative path on either host.
"""
