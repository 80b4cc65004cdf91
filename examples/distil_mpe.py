"""Distil a teacher of a particle task into small students and export them: python examples/distil_mpe.py.

Everything is written to results/example. --train trains a teacher first, instead of loading the bundled one.
"""

import sys
from pathlib import Path

import kd_marl

TASK = "pz-mpe-simple-speaker-listener-v4"


def main(results="results/example", train=False, teacher_keys=None, student_keys=None):
    """Make teacher, students and bundle; the keys are those of src/config/algs/kd_teacher.yaml and kd_student.yaml."""
    if train:
        teacher = kd_marl.train_teacher(TASK, env="mpe", results=results, **(teacher_keys or {}))
    else:
        teacher = kd_marl.load_teacher(TASK)
    print(f"teacher of {teacher.task}, {teacher.facts['steps']} steps: {teacher.folder}")

    # Under lh each agent observes only part of what the teacher observes.
    student = kd_marl.distil(TASK, "mpe", "lh", teacher=teacher, results=results, **(student_keys or {}))
    scores = kd_marl.evaluate(student)
    for policy in ("teacher", "student", "random"):
        print(f"{policy:8} return {scores[policy]['return_mean']:8.2f} ± {scores[policy]['return_std']:.2f}")
    print(f"retention {scores['retention']:.1%}")

    bundle = kd_marl.export(student, Path(results) / "bundle", force=True)
    for agent in bundle.agents:
        print(f"{agent.name}: width {agent.width}, {agent.inputs} inputs, {agent.parameters} parameters")
    print(f"bundle written to {bundle.folder}")
    return student, scores, bundle


if __name__ == "__main__":
    main(train="--train" in sys.argv[1:])
