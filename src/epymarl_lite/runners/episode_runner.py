"""Runner of one environment in this process."""

from __future__ import annotations

from types import SimpleNamespace

from epymarl_lite.envs import MultiAgentEnv
from epymarl_lite.envs.env_group import EnvGroup, env_factories
from epymarl_lite.runners.rollout import RolloutRunner
from epymarl_lite.utils.errors import ConfigError
from epymarl_lite.utils.logging import Logger


class EpisodeRunner(RolloutRunner):
    """Runner that plays one episode per run.

    Raises:
        ConfigError: ``batch_size_run`` is not 1.
    """

    def __init__(self, args: SimpleNamespace, logger: Logger) -> None:
        if args.batch_size_run != 1:
            raise ConfigError(
                f"runner 'episode' plays one environment: set batch_size_run=1, not {args.batch_size_run}"
            )
        super().__init__(args, logger, EnvGroup(env_factories(args)))

    @property
    def env(self) -> MultiAgentEnv:
        """The environment."""
        assert isinstance(self.envs, EnvGroup), "the episode runner plays in this process"
        return self.envs.envs[0]
