"""The env transform that provides what a policy carries from step to step."""

from __future__ import annotations

from torchrl.data import Composite, TensorSpec
from torchrl.envs import TensorDictPrimer

from ctde_kit.keys import Key


def primer(specs: dict[Key, TensorSpec]) -> TensorDictPrimer:
    """A transform that provides these entries; those of a group have the group's batch size, ``[*B, n_agents]``.

    Args:
        specs: of each entry, without the env's batch dimensions; the first dimension of a group's entry is
            ``n_agents``. If it is empty, the transform does nothing.
    """
    composite = Composite()
    for key, spec in specs.items():
        if isinstance(key, tuple) and key[:-1] not in composite.keys(True):
            composite[key[:-1]] = Composite(shape=spec.shape[:1])
        composite[key] = spec
    # The team's reset: where agents also have done flags, TorchRL cannot guess which one counts.
    return TensorDictPrimer(composite, expand_specs=True, reset_key="_reset")
