"""The action vectors that critics of actions read, computed from stored actions where a batch has no vectors."""

from __future__ import annotations

from collections.abc import Sequence

from tensordict import TensorDictBase

from ctde_kit.keys import Key
from ctde_kit.modules.networks.inputs import entry
from ctde_kit.specs import GroupSpec


def groups_that_act(groups: Sequence[GroupSpec], in_keys: Sequence[Key]) -> list[GroupSpec]:
    """The groups whose ``action_vector`` is among ``in_keys``."""
    return [group for group in groups if group.keys.action_vector in in_keys]


def with_action_vectors(groups: Sequence[GroupSpec], tensordict: TensorDictBase) -> TensorDictBase:
    """``tensordict`` or, if a group has no ``action_vector`` in it, a copy with the vectors of that group's ``action``.

    The kit's losses write vectors, which can carry a gradient where actions are discrete; TorchRL's ``DDPGLoss`` and
    ``SACLoss`` write only actions. Nothing is written into ``tensordict``: a stored vector would stay when its action
    is replaced.
    """
    missing = [group for group in groups if tensordict.get(group.keys.action_vector, None) is None]
    if not missing:
        return tensordict
    data = tensordict.copy()
    for group in missing:
        data.set(group.keys.action_vector, group.action.vector(entry(tensordict, group.keys.action)))
    return data
