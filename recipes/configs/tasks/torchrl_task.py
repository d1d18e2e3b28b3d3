"""TorchRL environments of a user's own as tasks."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ctde_kit.errors import UserError
from ctde_kit.files import JsonObject
from ctde_kit.recipes.configs.checks import PATH
from ctde_kit.recipes.configs.own_modules import imported, source
from ctde_kit.recipes.configs.tasks.task import TaskConfig, naming_params

if TYPE_CHECKING:
    from torchrl.envs import EnvBase


@dataclass
class TorchRLTask(TaskConfig):
    """A TorchRL environment with the keys ``(group, "observation")``, ``(group, "action")`` and ``(group, "reward")``.

    The function may take ``n_envs``: then it builds a batch ``[n_envs]``, and may take ``device``. Else it builds one
    environment, and ``n_envs`` of them are stepped one after the other.

    Args:
        name: of the task.
        n_envs: environments in the batch.
        groups_compete: report returns per group only.
        env: MODULE:FUNCTION or FILE.py:FUNCTION, which builds the environment.
        max_steps: steps per episode; an episode that is longer is truncated.
        params: the function's other arguments.

    >>> from ctde_kit.recipes import TorchRLTask
    >>> TorchRLTask(env="my_envs:make_env", max_steps=50).episode_steps
    50
    """

    name: str = "torchrl/own"
    env: str = field(default="", metadata=PATH)
    max_steps: int = 100
    params: JsonObject = field(default_factory=dict)

    @property
    def episode_steps(self) -> int:
        return self.max_steps

    def build(self, *, seed: int, device: str, n_envs: int | None = None) -> EnvBase:
        from torchrl.envs import SerialEnv, StepCounter, TransformedEnv

        function: Callable[..., object] = imported(self.env, f"task.env={self.env}")
        n_envs = n_envs or self.n_envs
        # TorchRL's metaclass hides what a class takes.
        known = inspect.signature(function.__init__ if isinstance(function, type) else function).parameters
        with naming_params(self.name, self.params):
            if "n_envs" in known:
                on = {"device": device} if "device" in known else {}
                env = self._checked(function(n_envs=n_envs, **on, **self.params), [n_envs])
            else:
                self._checked(function(**self.params), []).close()
                env = SerialEnv(n_envs, partial(function, **self.params)).to(device)
        env.set_seed(seed)
        transformed = TransformedEnv(env, StepCounter(self.max_steps))
        # What a foreign environment keeps is not known, so that a checkpoint resets it, in both runs.
        transformed.base_env.state_is_captured = False
        return transformed

    def _checked(self, env: object, batch: list[int]) -> EnvBase:
        from torchrl.envs import EnvBase

        if not isinstance(env, EnvBase):
            raise UserError(
                f"task.env={self.env}: expected a function that builds a TorchRL EnvBase, found {type(env).__name__}"
            )
        if list(env.batch_size) != batch:
            raise UserError(
                f"task.env={self.env}: expected an environment of the batch {batch}, found {list(env.batch_size)}; "
                "take n_envs as an argument and build so many, or build one environment without a batch"
            )
        return env

    def own_code(self) -> dict[str, Path]:
        """The function's file or package."""
        return {self.env: source(self.env, f"task.env={self.env}")}

    def evaluation_envs(self, episodes: int) -> int:
        return min(episodes, self.n_envs)
