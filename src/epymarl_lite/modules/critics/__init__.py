"""State-value critics, by the name that the `critic_type` key gives."""

from epymarl_lite.modules.critics.value_critics import ACCritic, ACCriticNS, CentralVCritic, CentralVCriticNS

REGISTRY = {
    "cv_critic": CentralVCritic,
    "ac_critic": ACCritic,
    "cv_critic_ns": CentralVCriticNS,
    "ac_critic_ns": ACCriticNS,
}
