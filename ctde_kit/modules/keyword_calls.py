"""Calls of modules with tensors instead of a tensordict, as TorchRL's modules take them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from tensordict import TensorDict, TensorDictBase

from ctde_kit.errors import UserError
from ctde_kit.keys import IS_INIT, STATE

# Entries without features: of the team (the others have an agent axis, too).
_FLAGS = ("mask", "sub_policy")


def keyword_calls(agent_axis: int = 1) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Makes a ``forward`` of a tensordict also take tensors: ``module(agents_observation=x)`` gives its ``out_keys``.

    Keywords are the names of ``in_keys``, joined by underscores; tensors without a name are taken in their order. One
    output is given alone, several as a tuple. TorchRL's ``dispatch`` does the same with an empty batch size, which
    modules that know the agent axis cannot use.

    Args:
        agent_axis: how many agent axes the entries of a group have: 1, or 0 for the policy of one agent.
    """

    def decorate(forward: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(forward)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            if args and isinstance(args[0], TensorDictBase):
                return forward(self, *args, **kwargs)
            if isinstance(kwargs.get("tensordict"), TensorDictBase):
                return forward(self, **kwargs)
            output = forward(self, _gathered(self, args, kwargs, agent_axis))
            values = tuple(output.get(key) for key in self.out_keys)
            return values[0] if len(values) == 1 else values

        return call

    return decorate


def _gathered(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], agent_axis: int) -> TensorDict:
    """The tensors of a call under the module's ``in_keys``."""
    names = {"_".join([key] if isinstance(key, str) else key): key for key in module.in_keys}
    unknown = [name for name in kwargs if name not in names]
    if unknown or len(args) > len(names) or not (args or kwargs):
        raise UserError(
            f"{type(module).__name__}: expected a tensordict or tensors named {list(names)}, found {len(args)} without "
            f"a name and {list(kwargs)}"
        )
    given = {**dict(zip(names.values(), args, strict=False)), **{names[name]: kwargs[name] for name in kwargs}}
    key, value = next(iter(given.items()))
    own_axes = 1 if key in (STATE, IS_INIT) else agent_axis + (key[-1] not in _FLAGS)
    return TensorDict(given, value.shape[: value.ndim - own_axes])
