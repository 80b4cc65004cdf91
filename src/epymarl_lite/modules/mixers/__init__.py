"""Mixers: from the agents' values of their own actions to the team's value."""

from epymarl_lite.modules.mixers.qmix import QMixer
from epymarl_lite.modules.mixers.vdn import VDNMixer

REGISTRY = {"vdn": VDNMixer, "qmix": QMixer}
