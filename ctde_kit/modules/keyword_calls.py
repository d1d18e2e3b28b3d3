"""A decorator for modules that take a tensordict: they can also be called with tensors, as TorchRL's modules can."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from ctde_kit.entry_tables import as_key
from ctde_kit.errors import UserError
from ctde_kit.keys import IS_INIT, STATE

Given = TensorDictBase | Tensor
Output = TensorDictBase | Tensor | tuple[Tensor, ...]
# Entries of a group that have an agent axis and no features.
_FLAGS = ("mask", "sub_policy")


def keyword_calls(agent_axis: int = 1) -> Callable[[Callable[..., TensorDictBase]], Callable[..., Output]]:
    """Makes a ``forward`` of a tensordict also take tensors: ``module(agents_observation=x)`` gives its ``out_keys``.

    Keywords are the names of ``in_keys``, joined by underscores; tensors without a name are taken in their order. One
    output is given alone, several as a tuple. TorchRL's ``dispatch`` does the same with an empty batch size, which
    modules that know the agent axis cannot use.

    Args:
        agent_axis: how many agent axes the entries of a group have: 1, or 0 for the policy of one agent.
    """

    def decorate(forward: Callable[..., TensorDictBase]) -> Callable[..., Output]:
        @wraps(forward)
        def call(self: TensorDictModuleBase, *args: Given, **kwargs: Given) -> Output:
            if args and isinstance(args[0], TensorDictBase):
                return forward(self, *args, **kwargs)
            if isinstance(kwargs.get("tensordict"), TensorDictBase):
                return forward(self, **kwargs)
            output = forward(self, _gathered(self, args, kwargs, agent_axis))
            values = tuple(output.get(key) for key in self.out_keys)
            return values[0] if len(values) == 1 else values

        return call

    return decorate


def _gathered(
    module: TensorDictModuleBase, args: tuple[Given, ...], kwargs: dict[str, Given], agent_axis: int
) -> TensorDict:
    """The tensors of a call under the module's ``in_keys``."""
    names = {key if isinstance(key, str) else "_".join(key): key for key in map(as_key, module.in_keys)}
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
