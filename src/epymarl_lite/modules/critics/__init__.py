"""State-value critics, by the name that the `critic_type` key gives."""

from epymarl_lite.modules.critics.value_critics import ACCritic, CentralVCritic

REGISTRY = {"cv_critic": CentralVCritic, "ac_critic": ACCritic}
