"""The base of the kit's losses: TorchRL's ``LossModule`` without functional parameters and value estimators."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any, NoReturn

from tensordict import TensorDict
from tensordict.utils import NestedKey
from torch import nn
from torchrl.objectives.common import LossModule

from ctde_kit.entry_tables import Entry
from ctde_kit.errors import UserError
from ctde_kit.objectives.entry_checks import EntryCheck
from ctde_kit.objectives.read_entries import needed_keys
from ctde_kit.protocols import SharedWithTargets

ONLINE, TARGETS = "networks_params", "target_networks_params"


def target_copy(networks: nn.ModuleDict) -> nn.ModuleDict:
    """A copy of ``networks`` that learns nothing; modules that are ``SharedWithTargets`` stay the same objects.

    All networks are copied at once, so that modules which the online networks share are also shared by their copies.
    """
    shared = [part for part in networks.modules() if isinstance(part, SharedWithTargets) and part.shared_with_targets]
    return deepcopy(networks, {id(part): part for part in shared}).requires_grad_(False)


class AttributeUserError(UserError, AttributeError):
    """A ``UserError`` for an attribute that is missing, so that ``hasattr`` gives ``False``."""


class ModuleLoss(LossModule):
    """A loss that holds its networks as modules, so that it compiles as one graph and shared layers stay shared.

    Methods of TorchRL's losses that it lacks raise an error of one line, which says what to use instead. Target
    networks can be moved by TorchRL's ``SoftUpdate`` and ``HardUpdate``, which find parameters by name, or by
    ``PolyakUpdate`` and ``HardUpdate`` of ``ctde_kit.training``.
    """

    returns_advice = ""
    """What errors advise to use instead of a value estimator."""

    def _table(self) -> list[Entry]:
        """The rows of ``entries``."""
        raise NotImplementedError

    def _forward_value_estimator_keys(self, **kwargs: NestedKey) -> None:
        """Rebuild the check of batches after ``set_keys``: no value estimator is held that would need the keys."""
        keys: Any = self.tensor_keys  # of the loss's own class, in which each has this key
        self._check_entries = EntryCheck(type(self).__name__, self._table(), keys.padding_mask)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What it reads of a batch: each batch is checked against this table."""
        return self._check_entries.entries

    @property
    def in_keys(self) -> list[NestedKey]:
        return needed_keys(self.entries)

    def online_networks(self) -> nn.ModuleDict:
        """The networks that ``target_networks`` follow, by the same names."""
        raise NotImplementedError

    @property
    def functional(self) -> bool:
        return False

    def set_keys(self, **kwargs: NestedKey | None) -> None:
        """Change single keys, by the names of TorchRL's losses; ``None`` for the default."""
        known = self._AcceptedKeys.__dataclass_fields__
        unknown = [name for name in kwargs if name not in known]
        if unknown:
            raise UserError(
                f"{type(self).__name__}.set_keys({unknown[0]}=...): expected one of {', '.join(known)}; "
                f"{self.returns_advice}"
            )
        super().set_keys(**kwargs)

    def make_value_estimator(self, value_type: object = None, **hyperparams: object) -> LossModule:
        """Refused: these losses read what an estimator wrote, or estimate returns themselves.

        Raises:
            UserError: always; it says what to use.
        """
        raise UserError(f"{type(self).__name__} has no make_value_estimator: {self.returns_advice}")

    @property
    def value_estimator(self) -> NoReturn:
        """Refused as ``make_value_estimator`` is."""
        raise UserError(f"{type(self).__name__} has no value_estimator: {self.returns_advice}")

    def children(self) -> Iterator[nn.Module]:
        return (module for _, module in super().named_children())

    def named_children(self) -> Iterator[tuple[str, nn.Module]]:
        """The modules, and ``target_networks`` once more under the name by which TorchRL's target updates look."""
        yield from super().named_children()
        networks = self._modules.get("target_networks")
        if networks is not None:
            yield TARGETS, networks

    def __getattr__(self, item: str) -> Any:
        if not item.endswith("_params"):
            return super().__getattr__(item)
        networks = self._modules.get("target_networks")
        if networks is not None and item in (ONLINE, TARGETS):
            return TensorDict.from_module(networks if item == TARGETS else self.online_networks())
        raise AttributeUserError(
            f"{type(self).__name__} has no {item}: it holds its networks as modules, not as functional parameters; use "
            f"parameters() of {', '.join(name for name, _ in super().named_children())}"
        )
