"""Mixers, which compute the team's value from the agents' values of their own actions."""

from epymarl_lite.modules.mixers.qmix import QMixer
from epymarl_lite.modules.mixers.vdn import VDNMixer

REGISTRY = {"vdn": VDNMixer, "qmix": QMixer}
