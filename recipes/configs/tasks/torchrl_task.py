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
from ctde_kit.recipes.configs.tasks.naming_params import naming_params
from ctde_kit.recipes.configs.tasks.task import TaskConfig

if TYPE_CHECKING:
    from torchrl.envs import EnvBase


# Entries of the observation spec that networks and buffers read, or that are meant for people.
IN_GROUP = ("observation", "state", "mask", "action_mask", "done", "terminated", "truncated", "info", "episode_reward")
AT_ROOT = ("state", "info", "pixels", "step_count", "is_init")


@dataclass
class TorchRLTask(TaskConfig):
    """A TorchRL environment with the keys ``(group, "observation")``, ``(group, "action")`` and ``(group, "reward")``.

    The function may take ``n_envs``: then it builds a batch ``[n_envs]``, and may take ``device``. Else it builds one
    environment, and ``n_envs`` of them are stepped one after the other. Observations, states and bounded actions of
    other shapes or dtypes than networks take are made flat float vectors (``FlatVectors``).

    Args:
        name: of the task.
        n_envs: environments in the batch.
        groups_compete: report returns per group only; null where there is one group.
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

        from ctde_kit.envs.transforms import flat_vectors

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
        self._check_read(env)
        transformed = TransformedEnv(flat_vectors(env), StepCounter(self.max_steps), auto_unwrap=True)
        # What a foreign environment keeps is not known, so a checkpoint resets it, whether the run then stops or not.
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
                "take n_envs as an argument and build that many, or build one environment without a batch"
            )
        return env

    def _check_read(self, env: EnvBase) -> None:
        """Raise ``UserError`` for an entry beside the observation, which no network would see."""
        groups = {key[0] for key in env.action_keys if not isinstance(key, str)}
        for key in env.observation_spec.keys(True, True):
            path = [*key] if isinstance(key, tuple) else [key]
            name, known = (path[1], IN_GROUP) if path[0] in groups else (path[0], AT_ROOT)
            if name not in known:
                raise UserError(
                    f"task.env={self.env}: the environment writes {key}, which no network reads; make it part of "
                    "(group, 'observation') with the transform CatTensors, or leave it out with ExcludeTransform"
                )

    def own_code(self) -> dict[str, Path]:
        """The function's file or package."""
        return {self.env: source(self.env, f"task.env={self.env}")}

    def evaluation_envs(self, episodes: int) -> int:
        return min(episodes, self.n_envs)
