"""Agent networks, by the name that the `agent` key gives."""

from epymarl_lite.modules.agents.rnn_agent import RNNAgent
from epymarl_lite.modules.agents.rnn_ns_agent import RNNNSAgent

REGISTRY = {"rnn": RNNAgent, "rnn_ns": RNNNSAgent}
