"""Parts as people write them with TorchRL alone."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import NormalParamExtractor, TensorDictModule, TensorDictModuleBase
from torch import Tensor, nn
from torchrl.envs import InitTracker, TransformedEnv
from torchrl.modules import MultiAgentMLP, ProbabilisticActor, TanhNormal
from torchrl.modules.tensordict_module.rnn import recurrent_mode
from torchrl.objectives import ClipPPOLoss, ValueEstimators

from tests.testing.walk_env import N_AGENTS, SIZE, WalkEnv

OBSERVATION, ACTION, VALUES = ("agents", "observation"), ("agents", "action"), ("agents", "chosen_action_value")
HIDDEN, N_ENVS, LENGTH = 5, 4, 7


def mlp(inputs: int, outputs: int, centralized: bool = False, share: bool = False) -> nn.Module:
    return MultiAgentMLP(inputs, outputs, N_AGENTS, centralized=centralized, share_params=share, depth=1, num_cells=8)


def actor(centralized: bool = False) -> ProbabilisticActor:
    """A continuous actor of TorchRL's tutorials."""
    network = nn.Sequential(mlp(SIZE, 2 * SIZE, centralized), NormalParamExtractor())
    return gaussian(TensorDictModule(network, [OBSERVATION], [("agents", "loc"), ("agents", "scale")]))


def gaussian(module: TensorDictModuleBase) -> ProbabilisticActor:
    return ProbabilisticActor(
        module,
        in_keys=[("agents", "loc"), ("agents", "scale")],
        out_keys=[ACTION],
        distribution_class=TanhNormal,
        return_log_prob=True,
    )


def critic() -> TensorDictModule:
    return TensorDictModule(mlp(SIZE, 1, centralized=True, share=True), [OBSERVATION], [("agents", "state_value")])


def ppo(policy: Any, **options: Any) -> ClipPPOLoss:
    """TorchRL's loss with its GAE."""
    loss = ClipPPOLoss(policy, critic(), normalize_advantage=False, **options)
    names = ("reward", "done", "terminated", "advantage", "value_target")
    loss.set_keys(
        action=ACTION,
        sample_log_prob=("agents", "action_log_prob"),
        value=("agents", "state_value"),
        **{name: ("agents", name) for name in names},
    )
    loss.make_value_estimator(ValueEstimators.GAE, gamma=0.9, lmbda=0.8)
    return loss


def experience(policy: Any, env: WalkEnv | None = None, length: int = LENGTH) -> TensorDictBase:
    """A batch ``[n_envs, T]`` with the team's flags expanded to the agents."""
    with torch.no_grad():
        batch = (env or WalkEnv()).rollout(length, policy, break_when_any_done=False)
    return with_agents_flags(batch)


def with_agents_flags(batch: TensorDictBase) -> TensorDictBase:
    for name in ("done", "terminated"):
        like = batch["next", "agents", "reward"]
        batch["next", "agents", name] = batch["next", name].unsqueeze(-2).expand_as(like).clone()
    return batch


class UserGRU(TensorDictModuleBase):
    """A GRU per agent, which follows TorchRL's recurrent mode and, like ``GRUModule``, unrolls whatever it is given.

    Args:
        hidden: where it keeps its state.
    """

    def __init__(self, hidden: Any = ("agents", "memory")):
        super().__init__()
        self.cell, self.hidden = nn.GRUCell(SIZE, HIDDEN), hidden
        self.head = nn.Sequential(nn.Linear(HIDDEN, 2 * SIZE), NormalParamExtractor())
        self.in_keys: list[Any] = [OBSERVATION, hidden, "is_init"]
        self.out_keys: list[Any] = [("agents", "loc"), ("agents", "scale"), ("next", *hidden)]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        x, hidden, is_init = (tensordict.get(key) for key in self.in_keys)
        time = tensordict.ndim - 1
        if not recurrent_mode():
            after = self._step(x, hidden, is_init)
        else:
            state, states = hidden.select(time, 0), []
            for step in range(x.shape[time]):
                begins = is_init.select(time, step) if step else torch.zeros_like(is_init.select(time, 0))
                state = self._step(x.select(time, step), state, begins)
                states.append(state)
            after = torch.stack(states, time)
        loc, scale = self.head(after)
        tensordict.set(("agents", "loc"), loc).set(("agents", "scale"), scale)
        return tensordict.set(("next", *self.hidden), after)

    def _step(self, x: Tensor, hidden: Tensor, is_init: Tensor) -> Tensor:
        hidden = hidden.masked_fill(is_init.unsqueeze(-2), 0)
        return self.cell(x.reshape(-1, SIZE), hidden.reshape(-1, HIDDEN)).reshape(hidden.shape)


def recurrent_experience(policy: Any) -> TensorDictBase:
    """Collected by hand, as a collector does: each step starts from the hidden state of the step before."""
    env, steps = TransformedEnv(WalkEnv(), InitTracker()), []
    root = env.reset().set(("agents", "memory"), torch.zeros(N_ENVS, N_AGENTS, HIDDEN))
    for _ in range(LENGTH):
        with torch.no_grad():
            data, following = env.step_and_maybe_reset(policy(root.clone()))
        steps.append(data)
        fresh = following["is_init"].unsqueeze(-1)
        root = following.set(("agents", "memory"), data["next", "agents", "memory"].masked_fill(fresh, 0))
    return with_agents_flags(torch.stack(steps, 1))


def q_batch(*batch: int) -> TensorDictBase:
    """Made-up transitions of agents with four actions and masks, and a team's reward."""
    agents = (*batch, N_AGENTS)

    def seen() -> dict[Any, Any]:
        allowed = torch.rand(*agents, 4) < 0.7
        allowed[..., 0] = True
        return {OBSERVATION: torch.randn(*agents, SIZE), ("agents", "action_mask"): allowed}

    flags = {name: torch.zeros(*batch, 1, dtype=torch.bool) for name in ("done", "terminated", "truncated")}
    following = {**seen(), "reward": torch.randn(*batch, 1), **flags}
    action = torch.randint(4, agents)
    return TensorDict({**seen(), ACTION: action, "next": TensorDict(following, batch)}, batch)


class UserVDN(nn.Module):
    """Double Q-learning of a sum, as people write it; ``fault`` says what is wrong with it.

    Args:
        fault: empty for nothing.
    """

    def __init__(self, fault: str = ""):
        super().__init__()
        self.fault = fault
        self.network, self.target_network = (
            nn.Sequential(nn.Linear(SIZE, 9), nn.Tanh(), nn.Linear(9, 4)) for _ in range(2)
        )
        self.target_network.requires_grad_(False)

    def forward(self, batch: TensorDictBase) -> dict[str, Tensor]:
        values = self.network(batch[OBSERVATION])
        chosen = values.gather(-1, batch[ACTION].unsqueeze(-1)).squeeze(-1).sum(-1, keepdim=True)
        following = self._next_value(batch)
        ends = batch["next", "done" if self.fault == "done cuts" else "terminated"]
        if self.fault == "nothing cuts":
            ends = torch.zeros_like(ends)
        reward = batch["next", "reward"]
        if reward.shape != following.shape and self.fault != "broadcasts":
            raise ValueError(f"reward {list(reward.shape)} beside {list(following.shape)}")
        target = reward + 0.9 * following * ~ends
        return {"loss": (chosen - (target if self.fault == "target learns" else target.detach())).square().mean()}

    def _next_value(self, batch: TensorDictBase) -> Tensor:
        observation, mask = batch["next"][OBSERVATION], batch["next", "agents", "action_mask"]
        if self.fault == "following row":
            observation = batch[OBSERVATION].roll(-1, batch.ndim - 1)
        online, target = self.network(observation), self.target_network(observation)
        if self.fault in ("target learns", "no target network"):
            target = online
        least = -torch.inf if self.fault == "-inf" else -1e4
        if self.fault != "no mask":
            online = online.masked_fill(~mask, least)
        if self.fault == "-inf":
            return online.max(-1).values.sum(-1, keepdim=True)
        chooser = target.masked_fill(~mask, least) if self.fault == "single Q" else online
        index = chooser.argmax(-1, keepdim=True)
        return target.gather(-1, index).squeeze(-1).sum(-1, keepdim=True)
