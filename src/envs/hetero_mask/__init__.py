"""Limited, heterogeneous observations: feature layouts, masks, presets, the environment wrapper and its table."""

from kd_envs.hetero_mask.known_layouts import layout_for
from kd_envs.hetero_mask.layouts import AgentLayout, FeatureLayout, plain_layout
from kd_envs.hetero_mask.mask import ObservationMask
from kd_envs.hetero_mask.presets import LIMITS, PRESETS, default_widths, mask_for, read_masks
from kd_envs.hetero_mask.table import mask_table, mask_text
from kd_envs.hetero_mask.wrapper import MaskedEnv

__all__ = [
    "LIMITS",
    "PRESETS",
    "AgentLayout",
    "FeatureLayout",
    "MaskedEnv",
    "ObservationMask",
    "default_widths",
    "layout_for",
    "mask_for",
    "mask_table",
    "mask_text",
    "plain_layout",
    "read_masks",
]
