"""``check_policy``: the doctor for policies."""

from __future__ import annotations

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torchrl.envs import EnvBase

from ctde_kit.testing import action_mask_rules, policy_rules, recurrence_rules
from ctde_kit.testing.entry_names import EntryNames, Keys
from ctde_kit.testing.findings import Report, drawing_from, examine
from ctde_kit.testing.policy_case import PolicyCase

POLICY_RULES = (
    policy_rules.own_data_alone,
    policy_rules.batch_shapes,
    policy_rules.no_noise_in_evaluation,
    policy_rules.no_shared_latent_in_execution,
    policy_rules.actions_in_spec,
    policy_rules.log_prob_again,
    policy_rules.for_agent_is_the_slice,
    action_mask_rules.masks_are_obeyed,
    action_mask_rules.masks_in_log_probs,
    recurrence_rules.steps_equal_sequence,
    recurrence_rules.starts_from_stored_hidden,
    recurrence_rules.hidden_state_survives,
    recurrence_rules.flat_minibatch_is_refused,
)


def check_policy(
    policy: TensorDictModuleBase,
    data: EnvBase | TensorDictBase,
    *,
    group: str | None = "agents",
    keys: Keys | None = None,
    env: EnvBase | None = None,
    decentralized: bool | None = None,
    steps: int = 20,
    raises: bool = True,
) -> Report:
    """Check one group's policy against the rules of policies: own data alone, masks, evaluation, hidden states.

    A hidden state is what the policy reads and also writes under ``next``, as TorchRL's ``GRUModule`` does.

    Args:
        policy: any TensorDict module that writes the group's actions.
        data: an env whose actions the policy writes, or a batch ``[*B, T]`` that was collected with the policy.
        group: the group's name; ``None`` for a single agent, whose entries are at the root.
        keys: entries that stand elsewhere than at ``(group, name)``, such as ``{"action": ("agents", "move")}``.
        env: where ``data`` are a batch, the env whose spec says which actions it takes.
        decentralized: whether each agent must act on its own data alone; ``None``: unless the policy's attribute
            ``decentralized`` says that it does not.
        steps: how many steps an env is rolled out for.
        raises: whether a broken rule is an error; else the report says so.

    Raises:
        RuleBroken: where a rule is broken.

    >>> import ctde_kit as ck
    >>> from ctde_kit.testing import check_policy
    >>> env = ck.VmasEnv("navigation", num_envs=3)
    >>> group = ck.TeamSpec.from_env(env)["agents"]
    >>> network = ck.MultiAgentMLP(group.observation_dim, group.action.n_parameters, group.n_agents)
    >>> actor = ck.MultiAgentActor(group, ck.own_observation(group), network)
    >>> check_policy(actor, env)["own_data_alone"].figure
    "4 agents, no output moves with another agent's data"
    """
    with drawing_from(0):
        case = PolicyCase(policy, data, EntryNames(group, keys), decentralized, steps, env)
    return examine(f"check_policy: {type(policy).__name__}", POLICY_RULES, case, raises)
