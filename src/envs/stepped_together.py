"""What environments answer that are stepped in one call."""

from __future__ import annotations

from typing import Any, ClassVar

from kd_core.errors import UserError


class SteppedTogether:
    """A batch of ``size`` environments, none of which can be called alone.

    Attributes:
        title: what messages call it.
        env_info: the sizes of each environment.
    """

    title: ClassVar[str]
    size: int
    env_info: dict[str, Any]

    def call(self, method: str) -> list[Any]:
        """Return the sizes of every environment, the only method that environments stepped together answer.

        Raises:
            UserError: any other method.
        """
        if method == "get_env_info":
            return [dict(self.env_info)] * self.size
        raise UserError(f"{self.title} cannot '{method}': leave render and save_replay at False")

    def close(self) -> None:
        """Hold nothing that needs closing."""
