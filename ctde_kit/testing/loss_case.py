"""A loss under examination: a callable from a batch to losses, its parameters, and batches changed on purpose."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from ctde_kit.errors import UserError
from ctde_kit.keys import IS_INIT, NEXT
from ctde_kit.protocols import StateDict
from ctde_kit.testing.comparing import moved, tensors_in
from ctde_kit.testing.entry_names import FLAGS, EntryNames, as_tuple, leaves
from ctde_kit.testing.findings import NotApplicable, drawing_from

Losses = Callable[[TensorDictBase], object]
Prepare = Callable[[TensorDictBase], TensorDictBase]
Parameters = nn.Module | Iterable[Tensor] | None
ACTORS = ("actor",)
CRITICS = ("critic", "value_network", "qvalue", "mixer")


@dataclass
class LossCase:
    """What the rules of losses check: a loss, a batch for it, and what is known of both.

    Args:
        loss: batch -> losses by name.
        batch: a minibatch that it takes.
        names: where the entries are.
        actor: the policy's parameters; ``None``: those of ``loss`` whose name begins with ``actor``.
        critic: the parameters of values; ``None``: those of ``loss`` whose name begins with one of ``CRITICS``.
        actor_losses: names of the losses that the policy learns from.
        value_losses: names of those that values learn from; empty: everything whose name begins with ``loss``.
        prepared: writes entries that the loss reads into a fresh batch, such as advantages; ``None`` where the batch
            has them.
        fresh: the batch ``[*B, T]`` that ``prepared`` is called on.
    """

    loss: Losses
    batch: TensorDictBase
    names: EntryNames
    actor: Parameters = None
    critic: Parameters = None
    actor_losses: Sequence[str] = ()
    value_losses: Sequence[str] = ()
    prepared: Callable[[TensorDictBase], TensorDictBase] | None = None
    fresh: TensorDictBase | None = None
    _listed: dict[str, list[Tensor]] = field(default_factory=dict, init=False)

    def __call__(self, batch: TensorDictBase) -> dict[str, Tensor]:
        """All losses and metrics, always with the same random numbers; running statistics stay as they are."""
        with drawing_from(7), unchanged(self.loss):
            return tensors_in(self.loss(batch.clone()), "loss")

    def total(self, batch: TensorDictBase, names: Sequence[str] = ()) -> Tensor:
        """The sum of these losses, or of all."""
        found = self(batch)
        chosen = names or [name for name in found if name.startswith("loss")]
        missing = [name for name in chosen if name not in found]
        if missing:
            raise UserError(f"loss: expected {missing[0]!r} among what it gives, {sorted(found)}; name its losses")
        return torch.stack([found[name].sum() for name in chosen]).sum()

    def value_total(self, batch: TensorDictBase) -> Tensor:
        """The sum of the losses that values learn from."""
        return self.total(batch, self.value_losses)

    @cached_property
    def learned(self) -> dict[str, Tensor]:
        """All parameters that learn."""
        given = {**self._parameters("actor", self.actor, ACTORS), **self._parameters("critic", self.critic, CRITICS)}
        if isinstance(self.loss, nn.Module):
            given |= {name: p for name, p in self.loss.named_parameters() if p.requires_grad}
        return _once(given)

    def actor_parameters(self) -> dict[str, Tensor]:
        """The policy's parameters, those that it shares with values left out."""
        return self._own("actor", self.actor, ACTORS, self._parameters("critic", self.critic, CRITICS))

    def critic_parameters(self) -> dict[str, Tensor]:
        """The parameters of values alone."""
        return self._own("critic", self.critic, CRITICS, self._parameters("actor", self.actor, ACTORS))

    def _own(
        self, name: str, given: Parameters, prefixes: Sequence[str], others: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        shared = {id(parameter) for parameter in others.values()}
        own = {key: p for key, p in self._parameters(name, given, prefixes).items() if id(p) not in shared}
        if not own:
            raise NotApplicable(f"no parameters of the {name} are known; give {name}=")
        return own

    def _parameters(self, name: str, given: Parameters, prefixes: Sequence[str]) -> dict[str, Tensor]:
        if isinstance(given, nn.Module):
            return _once({f"{name}.{key}": p for key, p in given.named_parameters() if p.requires_grad})
        if given is not None:
            self._listed.setdefault(name, list(given))
            return {f"{name}[{index}]": p for index, p in enumerate(self._listed[name])}
        if not isinstance(self.loss, nn.Module):
            return {}
        named = {key: p for key, p in self.loss.named_parameters() if p.requires_grad}
        return _once({key: p for key, p in named.items() if key.startswith(tuple(prefixes))})

    def targets(self, *parts: str) -> dict[str, Tensor]:
        """Tensors of target networks: what the loss's state holds under a name with ``target`` and one of ``parts``."""
        return {
            name: value
            for name, value in self._state().items()
            if isinstance(value, Tensor)
            and value.is_floating_point()
            and "target" in name
            and (not parts or any(part in name for part in parts))
        }

    def _state(self) -> StateDict:
        """The loss's state; of a loss that is no module, the states of the modules in its attributes."""
        if isinstance(self.loss, nn.Module):
            return self.loss.state_dict()
        held = vars(self.loss) if hasattr(self.loss, "__dict__") else {}
        modules = {name: module for name, module in held.items() if isinstance(module, nn.Module)}
        return {f"{name}.{key}": v for name, module in modules.items() for key, v in module.state_dict().items()}

    def running(self, batch: TensorDictBase) -> TensorDictBase:
        """A copy in which no step ends an episode, everyone is alive, and rewards are of size 1 at most."""
        changed = batch.clone()
        for key, value in leaves(changed).items():
            if key[-1] in FLAGS:
                changed.set(key, torch.zeros_like(value))
            elif key[-1] == "reward":
                changed.set(key, value / (1 + value.abs().max()))
            elif key[-1] == as_tuple(self.names["mask"])[-1] and value.dtype == torch.bool:
                changed.set(key, torch.ones_like(value))
        if IS_INIT in changed and changed.ndim > 1:
            begins = changed.get(IS_INIT).clone()
            begins[..., 1:, :] = False
            changed.set(IS_INIT, begins)
        return changed

    def ended(self, batch: TensorDictBase, place: tuple[int, ...], how: str) -> TensorDictBase:
        """A copy whose step at ``place`` is done, for the team and each agent: ``truncated`` or ``terminated``."""
        changed = batch.clone()
        for key, value in leaves(changed).items():
            if key[0] == NEXT and key[-1] in ("done", how):
                value[place] = True
        if IS_INIT in changed and changed.ndim > 1 and place[-1] + 1 < changed.shape[-1]:
            changed.get(IS_INIT)[(*place[:-1], place[-1] + 1)] = True
        return changed

    def seen(self, batch: TensorDictBase) -> list[tuple[str, ...]]:
        """What agents and critics see: float entries that stand at the root and under ``next``."""
        values = leaves(batch)
        return [
            key
            for key, value in values.items()
            if key[0] != NEXT
            and (NEXT, *key) in values
            and value.is_floating_point()
            and not key[-1].endswith("_hidden")
        ]

    def with_moved(self, batch: TensorDictBase, place: tuple[int, ...], prefix: tuple[str, ...] = ()) -> TensorDictBase:
        """A copy in which what is seen at ``place`` is something else; ``prefix`` is ``("next",)`` for what follows."""
        changed = batch.clone()
        for key in self.seen(batch):
            value = changed.get((*prefix, *key))
            value[place] = moved(value[place], 2.0)
        return changed


def _once(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each parameter under its first name."""
    first = {}
    for name, parameter in named.items():
        first.setdefault(id(parameter), (name, parameter))
    return dict(first.values())


def prepared_minibatch(
    batch: TensorDictBase, prepare: Prepare, minibatch: Prepare | None, *, estimator: object
) -> TensorDictBase:
    """What a loss is called on, from a fresh batch; the state of ``estimator``, which prepares it, stays as it is."""
    with drawing_from(0):
        with unchanged(estimator), torch.no_grad():
            prepared = prepare(batch.clone())
        return (prepared if minibatch is None else minibatch(prepared)).detach()


@contextmanager
def unchanged(*parts: object) -> Iterator[None]:
    """Afterwards the buffers and extra states of these modules are as before."""
    modules = [module for part in parts if isinstance(part, nn.Module) for module in part.modules()]
    kept = [(b, b.detach().clone()) for module in modules for b in module.buffers(recurse=False) if b is not None]
    extra = [
        (module, module.get_extra_state())
        for module in modules
        if type(module).get_extra_state is not nn.Module.get_extra_state
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in kept:
                # What has not moved is not touched: autograd counts writes.
                if not torch.equal(buffer, value):
                    buffer.copy_(value)
        for module, state in extra:
            module.set_extra_state(state)
