"""The transforms that training and evaluation envs need."""

from __future__ import annotations

from torch import nn
from torchrl.envs import EnvBase, InitTracker, RewardSum, TransformedEnv

from ctde_kit.envs.transforms import AgentState, LastAction
from ctde_kit.modules import OrnsteinUhlenbeckNoise, SubPolicyDraw, TeamPolicy
from ctde_kit.protocols import ProvidesPrimer
from ctde_kit.specs import TeamSpec


def with_transforms(env: EnvBase, team: TeamSpec, policy: TeamPolicy) -> TransformedEnv:
    """Add ``is_init``, episode returns ``(group, "episode_reward")``, and what this policy carries from step to step.

    Agent-specific states are added where ``team`` has them and ``env`` does not.
    """
    transformed = TransformedEnv(env, InitTracker(), auto_unwrap=True)
    keys = [group.keys for group in team]
    transformed.append_transform(
        RewardSum(
            in_keys=[key.reward for key in keys],
            out_keys=[key.episode_reward for key in keys],
            reset_keys=["_reset"] * len(keys),
        )
    )
    actors = policy.actors
    written = env.observation_spec.keys(True, True)
    if any(group.state_dim is not None and group.keys.state not in written for group in team):
        transformed.append_transform(AgentState(team))
    if any(group.keys.last_action in actors[group.name].in_keys for group in team):
        transformed.append_transform(LastAction(team))
    for group in team:
        actor = actors[group.name]
        if {group.keys.hidden("actor"), group.keys.team_hidden("actor")} & {*actor.in_keys}:
            assert isinstance(actor, ProvidesPrimer)
            transformed.append_transform(actor.make_tensordict_primer())
        for part in actor.modules() if isinstance(actor, nn.Module) else ():
            if isinstance(part, (OrnsteinUhlenbeckNoise, SubPolicyDraw)):
                transformed.append_transform(part.make_tensordict_primer())
    return transformed
