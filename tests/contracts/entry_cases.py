"""Every loss and estimator that reads a batch, small, with a batch that is made from its table of entries alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.objectives.common import LossModule

from ctde_kit.entry_tables import Entry
from ctde_kit.keys import next_key
from ctde_kit.modules import (
    ActionPredictors,
    AttentionCritic,
    FrozenActor,
    InferredPolicies,
    MultiAgentDeterministicActor,
    QMixer,
    QPLEXMixer,
    RandomActor,
    RandomOrderCritic,
    SubPolicies,
    SubPolicyDraw,
    TeamPolicy,
    ValueNorm,
    VDNMixer,
    action_value_critic,
    counterfactual_critic,
    own_observation,
    value_critic,
)
from ctde_kit.objectives import (
    AdvantageEstimator,
    COMAActorLoss,
    COMACriticLoss,
    COMATargets,
    HAPPOLoss,
    MADDPGLoss,
    MAPPOLoss,
    MASACLoss,
    MinimaxAdversary,
    MutualInformation,
    PolicyInference,
    QMixLoss,
    TargetPolicySmoothing,
    TDLambdaReturn,
    TeamReward,
)
from ctde_kit.specs import TeamSpec
from tests.contracts.fakes import group_spec, make_actor, make_network, make_q_actor

BATCH = (7, 9)
Reader = Any


@dataclass(frozen=True)
class Case:
    """Something that reads a batch: ``make`` builds it, with the same parameters each time."""

    make: Callable[[], Reader]
    batch: tuple[int, ...] = BATCH

    def build(self) -> Reader:
        torch.manual_seed(0)
        return self.make()


def herd(kind: str, masked: bool = True, state_dim: int | None = 10) -> TeamSpec:
    """Two groups of which no two sizes are the same; agents of the second die."""
    discrete = masked and kind != "continuous"
    wolves = group_spec("wolves", 3, kind, action_mask=discrete, state_dim=11)
    return TeamSpec((wolves, group_spec("sheep", 4, kind, observation_dim=8, mask=masked, state_dim=13)), state_dim)


def mappo(kind: str, group: str = "wolves", recurrent: bool = False, order: bool = False, **layout: Any) -> Case:
    def make() -> MAPPOLoss:
        team = herd(kind)
        actor = make_actor(team[group], recurrent)
        critic: Any = value_critic(team, team[group], make_network(recurrent), **layout)
        critic = RandomOrderCritic(team, critic) if order else critic
        return MAPPOLoss(actor, critic, keys=team[group].keys, value_norm=ValueNorm())

    return Case(make)


def one_network(recurrent: bool) -> Case:
    def make() -> MAPPOLoss:
        sheep = herd("categorical")["sheep"]
        actor = make_actor(sheep, recurrent, value_head=True)
        return MAPPOLoss(actor, actor.agent_network, keys=sheep.keys)

    return Case(make)


def happo(kind: str, group: str = "wolves", recurrent: bool = False) -> Case:
    def make() -> HAPPOLoss:
        team = herd(kind)
        critic = value_critic(team, team[group], make_network(recurrent), heads="one")
        return HAPPOLoss(make_actor(team[group], recurrent, share=False), critic, keys=team[group].keys)

    return Case(make)


def mappo_attention() -> MAPPOLoss:
    team = herd("categorical")
    critic = AttentionCritic(team, team["sheep"], make_network(False), embed_dim=12, n_heads=2)
    return MAPPOLoss(make_actor(team["sheep"]), critic, keys=team["sheep"].keys)


def advantages(group: str = "wolves", recurrent: bool = False, of_team: bool = False, **layout: Any) -> Case:
    def make() -> AdvantageEstimator:
        team = herd("categorical")
        critic = value_critic(team, team[group], make_network(recurrent), **layout)
        return AdvantageEstimator(critic, team[group].keys, gamma=0.9, lmbda=0.8, of_team=of_team)

    return Case(make)


def advantages_of_an_actor() -> AdvantageEstimator:
    sheep = herd("categorical")["sheep"]
    network = make_actor(sheep, recurrent=True, value_head=True).agent_network
    return AdvantageEstimator(network, sheep.keys, gamma=0.9, lmbda=0.8)


def q_learning(
    mixer: Any, kind: str = "categorical", recurrent: bool = False, masked: bool = True, **options: Any
) -> Case:
    def make() -> QMixLoss:
        team = herd(kind, masked)
        actors = {group.name: make_q_actor(group, recurrent, last_action=recurrent) for group in team}
        return QMixLoss(actors, mixer(team), gamma=0.9, **options)

    return Case(make, BATCH if options.get("returns") or recurrent else BATCH[:1])


def maddpg(
    kind: str = "continuous",
    recurrent: bool = False,
    mixer: Any = None,
    critic: Any = None,
    masked: bool = True,
    **options: Any,
) -> Case:
    def make() -> MADDPGLoss:
        team = herd(kind, masked)
        actors, critics = {}, {}
        for group in team:
            network = make_network(recurrent)(group.observation_dim, group.action.vector_dim, group.n_agents)
            actors[group.name] = MultiAgentDeterministicActor(group, own_observation(group), network)
            make_critic = critic or (lambda team, group: action_value_critic(team, group, make_network(recurrent)))
            critics[group.name] = make_critic(team, group)
        beliefs = PolicyInference(InferredPolicies(team, make_network(False))) if options.get("inference") else None
        parts = {**options, "inference": beliefs}
        if parts.pop("twins", False):
            parts["twin_critics"] = {
                group.name: action_value_critic(team, group, make_network(False)) for group in team
            }
        return MADDPGLoss(actors, critics, None if mixer is None else mixer(team), gamma=0.9, **parts)

    return Case(make, BATCH if recurrent else BATCH[:1])


def masac(kind: str, recurrent: bool = False, masked: bool = True, information: bool = False, **options: Any) -> Case:
    def make() -> MASACLoss:
        team = herd(kind, masked)
        actors = {group.name: make_actor(group, recurrent, latent_dim=4 * information) for group in team}
        network = make_network(recurrent)
        critics, twins = ({g.name: action_value_critic(team, g, network) for g in team} for _ in range(2))
        parts = {**options}
        if information:
            predictors = ActionPredictors(team, make_network(False))
            parts["mutual_information"] = MutualInformation(predictors, weight=0.3, latent_samples=2)
        return MASACLoss(actors, critics, twins, gamma=0.9, **parts)

    return Case(make, BATCH if recurrent else BATCH[:1])


def coma(part: str, kind: str = "categorical", group: str = "wolves", recurrent: bool = False, **layout: Any) -> Case:
    """``critic``, ``actor`` or ``targets``."""

    def make() -> Reader:
        team = herd(kind)
        losses = {g.name: COMACriticLoss(counterfactual_critic(team, g, make_network(False), **layout)) for g in team}
        actors = {g.name: make_actor(g, recurrent) for g in team}
        if part == "targets":
            return COMATargets(TeamPolicy(actors), losses, gamma=0.9)
        return losses[group] if part == "critic" else COMAActorLoss(actors[group], losses[group].critic_network)

    return Case(make)


def maddpg_ensembles() -> MADDPGLoss:
    team = herd("categorical")
    actors, critics = {}, {}
    for group in team:
        network = make_network(False, False)
        parts = [network(group.observation_dim, group.action.vector_dim, group.n_agents) for _ in range(4)]
        inputs = own_observation(group, sub_policies=4)
        actors[group.name] = MultiAgentDeterministicActor(
            group, inputs, SubPolicies(parts), sub_policies=SubPolicyDraw(group, 4)
        )
        critics[group.name] = action_value_critic(team, group, network)
    return MADDPGLoss(actors, critics, gamma=0.9)


def maddpg_opponents(opponent: Callable[..., Any]) -> Callable[[], MADDPGLoss]:
    def make() -> MADDPGLoss:
        team = herd("categorical")
        wolves = team["wolves"]
        network = make_network(False)(wolves.observation_dim, wolves.action.vector_dim, wolves.n_agents)
        learner = MultiAgentDeterministicActor(wolves, own_observation(wolves), network)
        critic = action_value_critic(team, wolves, make_network(False), sees="state")
        return MADDPGLoss({"wolves": learner, "sheep": opponent(team["sheep"])}, {"wolves": critic}, gamma=0.9)

    return make


def attention(team: TeamSpec, group: Any) -> AttentionCritic:
    return AttentionCritic(team, group, make_network(False), of_actions=True, embed_dim=12, n_heads=2)


def random_order(team: TeamSpec, group: Any) -> RandomOrderCritic:
    return RandomOrderCritic(team, action_value_critic(team, group, make_network(False)))


CASES: dict[str, Case] = {
    "MAPPO": mappo("categorical"),
    "MAPPO with dead agents": mappo("categorical", "sheep"),
    "MAPPO continuous": mappo("continuous", sees="state"),
    "MAPPO one-hot": mappo("one_hot", sees="agent_state"),
    "MAPPO multi-discrete": mappo("multi_discrete", "sheep", sees="agent_state"),
    "MAPPO recurrent": mappo("categorical", recurrent=True),
    "MAPPO with random orders": mappo("categorical", order=True),
    "MAPPO with attention": Case(mappo_attention),
    "IPPO": mappo("one_hot", "sheep", sees="observation"),
    "IPPO, one network": one_network(recurrent=False),
    "IPPO, one recurrent network": one_network(recurrent=True),
    "HAPPO": happo("categorical"),
    "HAPPO with dead agents": happo("categorical", "sheep"),
    "HAPPO continuous": happo("continuous"),
    "HAPPO one-hot": happo("one_hot"),
    "HAPPO multi-discrete": happo("multi_discrete", "sheep"),
    "HAPPO recurrent": happo("categorical", recurrent=True),
    "advantages": advantages(),
    "advantages of a state": advantages("sheep", sees="state"),
    "advantages of agents' states": advantages("sheep", sees="agent_state"),
    "advantages, recurrent": advantages("sheep", recurrent=True),
    "advantages, recurrent, of an actor's network": Case(advantages_of_an_actor),
    "advantages of a team": advantages("sheep", heads="one", of_team=True),
    "IQL": q_learning(lambda team: None),
    "IQL, recurrent": q_learning(lambda team: None, recurrent=True, burn_in=2, returns=TDLambdaReturn(0.7)),
    "VDN": q_learning(VDNMixer),
    "VDN without masks": q_learning(VDNMixer, masked=False),
    "QMIX": q_learning(lambda team: QMixer(team, embed_dim=9)),
    "QMIX recurrent": q_learning(lambda team: QMixer(team, embed_dim=9), "one_hot", recurrent=True),
    "QPLEX": q_learning(lambda team: QPLEXMixer(team, n_heads=4, hypernet_cells=(9,))),
    "PQN": q_learning(VDNMixer, "one_hot", returns=TDLambdaReturn(0.7), use_target_networks=False),
    "MADDPG": maddpg(),
    "MADDPG without masks": maddpg("categorical", masked=False),
    "MADDPG categorical": maddpg("categorical"),
    "MADDPG one-hot": maddpg("one_hot", other_actions="current", team_weight=0.5),
    "MADDPG multi-discrete": maddpg("multi_discrete"),
    "MADDPG recurrent": maddpg(recurrent=True, burn_in=2),
    "MADDPG with attention": maddpg(critic=attention),
    "MADDPG with random orders": maddpg(critic=random_order),
    "M3DDPG": maddpg(adversary=MinimaxAdversary(0.1)),
    "MATD3": maddpg(twins=True, smoothing=TargetPolicySmoothing()),
    "MADDPG with beliefs": maddpg("categorical", inference=True),
    "MADDPG with ensembles": Case(maddpg_ensembles, BATCH[:1]),
    "MADDPG against random": Case(maddpg_opponents(RandomActor), BATCH[:1]),
    "MADDPG against frozen": Case(maddpg_opponents(lambda group: FrozenActor(make_actor(group))), BATCH[:1]),
    "MASAC": masac("continuous", share_alpha=False),
    "MASAC without masks": masac("categorical", masked=False, other_actions="current"),
    "MASAC one-hot": masac("one_hot"),
    "MASAC multi-discrete": masac("multi_discrete", team_weight=0.5),
    "MASAC recurrent": masac("categorical", recurrent=True, burn_in=2),
    "MASAC with mutual information": masac("categorical", information=True),
    "COMA, critic": coma("critic"),
    "COMA, critic of a state": coma("critic", "one_hot", "sheep", sees="state"),
    "COMA, critic of agents' states": coma("critic", group="sheep", sees="agent_state"),
    "COMA, actor": coma("actor"),
    "COMA, actor with dead agents": coma("actor", "one_hot", "sheep"),
    "COMA, recurrent actor": coma("actor", group="sheep", recurrent=True, sees="state"),
    "COMA, targets": coma("targets", own_first=True),
    "COMA, targets with recurrent actors": coma("targets", "one_hot", recurrent=True, sees="state"),
    "FACMAC": maddpg(mixer=lambda team: QMixer(team, embed_dim=9)),
    "team reward without masks": Case(lambda: TeamReward(herd("categorical", masked=False), "sum")),
    "team reward": Case(lambda: TeamReward(herd("categorical"), "sum")),
}


def batch_of(entries: Iterable[Entry], batch: tuple[int, ...]) -> TensorDict:
    """Random values for each row of a table; masks are true nearly everywhere."""
    generator = torch.Generator().manual_seed(1)
    data = TensorDict({}, batch)
    known = {(entry.group, name): size for entry in entries for name, size in entry.named_sizes if size is not None}
    for entry in entries:
        sizes = [known[entry.group, name] if size is None else size for name, size in entry.named_sizes]
        data.set(entry.key, _value(entry, (*batch, *sizes), generator))
    _make_consistent(data)
    return data


def _value(entry: Entry, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if entry.dtype == "bool":
        return torch.rand(shape, generator=generator) < (0.2 if str(entry.key[-1]) in ("done", "terminated") else 0.8)
    if entry.dtype == "int64":
        columns = [torch.randint(n, shape, generator=generator) for n in entry.n_values]
        return columns[0] if len(columns) == 1 else torch.stack([column[..., 0] for column in columns], -1)
    if entry.dtype == "one-hot":
        index = torch.randint(shape[-1], shape[:-1], generator=generator)
        return torch.nn.functional.one_hot(index, shape[-1])
    if entry.dtype == "any float":
        return 0.5 + 0.5 * torch.randint(2, shape, generator=generator)
    return torch.randint(1, 8, shape, generator=generator) / 16


def _make_consistent(data: TensorDictBase) -> None:
    """Everything is allowed, the first agents live, and orders are permutations."""
    for key, value in list(data.items(True, True)):
        if key[-1] == "action_mask":
            value.fill_(True)  # nothing that was done may be forbidden
        if key[-1] == "mask" or key == "is_init":
            value[..., 0] = True
        if key[-1] == "order":
            order = torch.rand(value.shape).argsort(-1)
            data.set(key, order)
            if key[0] != "next":
                data.set(next_key(key), order)


def run(reader: Reader, data: TensorDictBase) -> dict[str, Tensor]:
    """What it gives of a batch: a loss's results, or what an estimator writes."""
    torch.default_generator.manual_seed(2)  # of the CPU alone: a tenth of the time
    if isinstance(reader, AdvantageEstimator):
        reader.critic_hidden = None
    before = {} if isinstance(reader, LossModule) else dict(data.items(True, True))
    result = reader(data)
    return {str(key): value.detach() for key, value in result.items(True, True) if key not in before}
