"""Losses and an estimator of users, and how users break such ones; written before the doctor was read."""

from __future__ import annotations

from copy import deepcopy

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

Losses = dict[str, Tensor]


def at_next(batch: TensorDictBase) -> TensorDictBase:
    return batch["next"].select(("agents", "observation"))


class GAE:
    """Generalized advantage estimates of each agent, ``[n_envs, T]`` batches, the team's flags."""

    def __init__(self, critic: nn.Module, gamma: float = 0.97, lmbda: float = 0.9):
        self.critic, self.gamma, self.lmbda = critic, gamma, lmbda

    @torch.no_grad()
    def __call__(self, batch: TensorDictBase) -> TensorDictBase:
        value = self.critic(batch.copy())["agents", "state_value"]
        next_value = self.critic(at_next(batch))["agents", "state_value"]
        lives = (~batch["next", "terminated"]).unsqueeze(-1).float()
        delta = batch["next", "agents", "reward"] + self.gamma * lives * next_value - value
        goes_on = self.goes_on(batch).unsqueeze(-1).float()
        advantage, trace = torch.zeros_like(delta), torch.zeros_like(delta[:, 0])
        for t in reversed(range(delta.shape[1])):
            trace = delta[:, t] + self.gamma * self.lmbda * goes_on[:, t] * trace
            advantage[:, t] = trace
        batch["agents", "state_value"] = value
        batch["agents", "advantage"], batch["agents", "value_target"] = advantage, advantage + value
        return batch

    def goes_on(self, batch: TensorDictBase) -> Tensor:
        """Where the following row belongs to the same episode."""
        return ~batch["next", "done"]


class LeakingGAE(GAE):
    """Broken: ``terminated`` cuts the trace, too, so that at a time limit the next episode's advantages leak in.

    What is left behind where ``done`` was split into ``terminated`` and ``truncated`` by search and replace.
    """

    def goes_on(self, batch: TensorDictBase) -> Tensor:
        return ~batch["next", "terminated"]


class PPOLoss:
    """PPO's clipped loss with a ratio per agent, a squared value error and an entropy bonus."""

    entropy_sign = -1.0

    def __init__(self, actor: nn.Module, critic: nn.Module, entropy_coeff: float = 0.01):
        self.actor, self.critic, self.entropy_coeff = actor, critic, entropy_coeff

    def __call__(self, batch: TensorDictBase) -> Losses:
        dist = self.actor.get_dist(batch.copy())
        log_prob = dist.log_prob(batch["agents", "action"])
        ratio = (log_prob - batch["agents", "action_log_prob"]).exp()
        advantage = batch["agents", "advantage"].squeeze(-1)
        gain = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
        value = self.critic(batch.copy())["agents", "state_value"]
        return {
            "loss_objective": -gain.mean(),
            "loss_critic": (value - batch["agents", "value_target"]).square().mean(),
            "loss_entropy": self.entropy_sign * self.entropy_coeff * dist.entropy().mean(),
        }


class PPOLossAgainstEntropy(PPOLoss):
    """Broken: the bonus is added to what is minimized, so the policy is paid for being certain."""

    entropy_sign = 1.0


class QLearningLoss:
    """Independent Q-learning of each agent on one-step targets, without target networks."""

    def __init__(self, network: nn.Module, gamma: float = 0.97):
        self.network, self.gamma = network, gamma

    def __call__(self, batch: TensorDictBase) -> Losses:
        values = self.network(batch.copy())["agents", "action_value"]
        chosen = values.gather(-1, batch["agents", "action"].unsqueeze(-1))
        return {"loss": (chosen - self.target(batch)).square().mean()}

    def target(self, batch: TensorDictBase) -> Tensor:
        with torch.no_grad():
            return self.returns(batch)

    def returns(self, batch: TensorDictBase) -> Tensor:
        best = self.network(at_next(batch))["agents", "action_value"].amax(-1, keepdim=True)
        lives = (~batch["next", "terminated"]).unsqueeze(-1).float()
        return batch["next", "agents", "reward"] + self.gamma * lives * best


class ResidualQLearningLoss(QLearningLoss):
    """Broken: the target is no constant, so the gradient also moves it toward the value."""

    def target(self, batch: TensorDictBase) -> Tensor:
        return self.returns(batch)


class DeterministicTeamLoss:
    """MADDPG's losses of continuous actions: in agent i's actor loss the others act as the batch has it.

    ``actor`` writes ``action``; ``critic`` reads observations and actions of all, and writes ``state_action_value``
    ``[*B, n_agents, 1]``.
    """

    def __init__(self, actor: nn.Module, critic: nn.Module, n_agents: int = 3, gamma: float = 0.97):
        self.actor, self.critic, self.n_agents, self.gamma = actor, critic, n_agents, gamma
        self.target_actor = deepcopy(actor).requires_grad_(False)
        self.target_critic = deepcopy(critic).requires_grad_(False)

    def __call__(self, batch: TensorDictBase) -> Losses:
        value = self.critic(batch.copy())["agents", "state_action_value"]
        return {
            "loss_actor": self.actor_loss(batch),
            "loss_value": (value - self.target(batch)).square().mean(),
        }

    def actor_loss(self, batch: TensorDictBase) -> Tensor:
        stored = batch["agents", "action"]
        current = self.actor(batch.copy())["agents", "action"]
        self.critic.requires_grad_(False)
        total = torch.zeros(())
        for agent in range(self.n_agents):
            joint = stored.clone()
            joint[..., agent, :] = current[..., agent, :]
            data = batch.copy().set(("agents", "action"), joint)
            total = total - self.critic(data)["agents", "state_action_value"][..., agent, :].mean()
        self.critic.requires_grad_(True)
        return total

    @torch.no_grad()
    def target(self, batch: TensorDictBase) -> Tensor:
        following = self.following(batch)
        value = self.target_critic(following)["agents", "state_action_value"]
        lives = (~batch["next", "terminated"]).unsqueeze(-1).float()
        return batch["next", "agents", "reward"] + self.gamma * lives * value

    def following(self, batch: TensorDictBase) -> TensorDictBase:
        """The next observations, and what the target actors do there."""
        return self.target_actor(at_next(batch))


class StaleActionLoss(DeterministicTeamLoss):
    """Broken: the target values the next observations with the actions of the step before; nobody asked the actors."""

    def following(self, batch: TensorDictBase) -> TensorDictBase:
        return at_next(batch).set(("agents", "action"), batch["agents", "action"])
