"""The three MPE tasks' feature layouts, for the tests of masks."""

from kd_envs.hetero_mask import layout_for

SPREAD = layout_for("pz-mpe-simple-spread-v3", 3, 18)
SPEAKER_LISTENER = layout_for("pz-mpe-simple-speaker-listener-v4", 2, 11)
ADVERSARY = layout_for("pz-mpe-simple-adversary-v3", 3, 10)
MPE_LAYOUTS = [SPREAD, SPEAKER_LISTENER, ADVERSARY]
MPE_IDS = [layout.task for layout in MPE_LAYOUTS]


def seen(mask):
    """Names of what each agent sees, by agent name."""
    return {name: mask.names(i) for i, name in enumerate(mask.layout.agent_names)}
