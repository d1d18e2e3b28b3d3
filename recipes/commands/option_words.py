"""Translates errors of the library, which name its arguments, into the options of the command line."""

from __future__ import annotations

import re

_AGENT_STATE = {"append envs.transforms.AgentState to it": "use critic.build_state=true, which appends it to the env"}
_OTHER_INPUT = {"team_observation, or sees='team' of a critic": "critic=centralized"}

# By how an error begins: patterns of the library's words, and the options that stand for them.
OPTION_WORDS: dict[str, dict[str, str]] = {
    "global_state:": {"^global_state": "critic=state", **_OTHER_INPUT},
    "agent_state:": {"^agent_state": "critic=agent_state", **_AGENT_STATE, **_OTHER_INPUT},
    "critic of actions: sees=": {
        "^critic of actions: sees='(agent_state|state)'": r"critic.sees=\1",
        **_AGENT_STATE,
        "sees='team'": "critic.sees=team",
    },
    "RandomOrderCritic:": {
        "^RandomOrderCritic": "critic.ordering=random",
        "give a critic with a feed-forward network": "use a feed-forward network (network@critic.network=mlp)",
        "use it without a random order": "a fixed order (critic.ordering=fixed)",
    },
    "AgentNetwork:": {
        r"^AgentNetwork: the input of \w+": "network@critic.network: the input",
        "^AgentNetwork: ": "",
        "sees='observation' or 'agent_state' of a critic": "critic=decentralized or critic=agent_state",
    },
    "group '": {
        "use an env that has them": "use task.continuous_actions=false where the task has it",
        "use another env, or MultiAgentActor": "use another task, or ctde-mappo",
    },
    "SubPolicies:": {
        "^SubPolicies": "ensemble_size",
        "give networks without a channel, such as MultiAgentMLP or MultiAgentGRU": (
            "leave ensemble_size=1, or use a network without a channel (network@actor=mlp or gru)"
        ),
    },
    "GumbelNoise:": {
        "^GumbelNoise": "exploration=gumbel",
        "GaussianNoise": "exploration=gaussian",
        "an env with discrete actions": "task.continuous_actions=false",
    },
    "GaussianNoise and": {
        "^GaussianNoise and OrnsteinUhlenbeckNoise": "exploration",
        "GumbelNoise": "exploration=gumbel",
    },
    "mixer_state:": {"^mixer_state: ": "", r"sees='(\w+)'": r"mixer.sees=\1"},
    "mixer:": {
        "use another env": "use task.continuous_actions=false where the task has it, or another mixer",
        "give actors without sub_policies, or mixer=None": "leave ensemble_size=1, or run ctde-maddpg with mixer=none",
        "use QMixer or VDNMixer": "use mixer=qmix or mixer=vdn",
    },
    "mixer, adversary, inference:": {"^mixer, adversary, inference": "mixer, minimax_epsilon, infer_policies"},
    "twin_critics:": {"^twin_critics": "twin_critics=true", "leave twin_critics=None": "give twin_critics=false"},
    "smoothing:": {"^smoothing": "smoothing_deviation", "leave smoothing=None": "give smoothing_deviation=null"},
    "inference:": {"^inference": "infer_policies=true", "inference=None": "infer_policies=false"},
    "team_weight=": {r"other_actions='(\w+)'": r"other_actions=\1"},
    "scenario argument '": {r"^scenario argument '(\w+)'": r"task.params.\1"},
    "environment '": {"^environment '([^']*)'": r"task.env=\1"},
    "GreedyChase:": {
        "^GreedyChase": "opponents.GROUP=greedy_chase",
        "choose the predators' group, or set n_landmarks": (
            "it is for the predators alone, as in opponents.adversary=greedy_chase, and for two landmarks"
        ),
        "use another policy": "choose another opponent",
    },
    "clip_value=": {"clip_value=None": "clip_value=null"},
    "Replay:": {
        "^Replay: ": "",
        r"\b(capacity|batch_size)=": r"replay.\1=",
        r"stored_on='(\w+)'": r"replay.stored_on=\1",
        "directory='([^']*)'": r"replay.directory=\1",
        "make capacity smaller or choose another directory": (
            "make replay.capacity smaller or choose another replay.directory"
        ),
        r"collect more first \(learning_starts\)": "raise learning_starts",
    },
    "Episodes:": {"^Episodes: max_steps": "replay.form.max_steps"},
    "form='onnx'": {r"form='(\w+)'": r"format=\1"},
    "Learners:": {"^Learners: ": "distributed.learners: ", "use one learner": "leave it out"},
    "AgentLearners:": {
        "^AgentLearners: learners=": "distributed.learners=",
        "^AgentLearners: ": "distributed.by=agent: ",
        "share batches instead, as Learners do": "use distributed.by=batch",
        r"collect='(\w+)'": r"distributed.collect=\1",
    },
    "address=": {"^address=": "distributed.address=", "choose local": "choose distributed.address=local"},
    "metric=": {r"^metric='([^']*)'": r"checkpoint.metric=\1"},
    "run directory": {"choose another path": "choose another with hydra.run.dir=DIR"},
    "checkpoint": {r"pass algorithm='(\w+)'": r"resume it with ctde-\1"},
}

# Parts as their repr shows them, in any error.
SHOWN_PARTS = {
    r"the items of Sequences\(length=(\d+), burn_in=0\) shorter": r"replay.form.length=\1 smaller",
    r"the items of Sequences\(length=(\d+), burn_in=(\d+)\) shorter": (
        r"replay.form.length=\1 or replay.form.burn_in=\2 smaller"
    ),
    r"the items of Episodes\(max_steps=(\d+)\) shorter": r"replay.form.max_steps=\1 smaller",
}


def in_options(message: str) -> str:
    """An error's ``message`` with options of the command line in place of the library's arguments.

    >>> in_options("mixer_state: sees='state': this env writes no root key 'state'; use sees='team'")
    "mixer.sees=state: this env writes no root key 'state'; use mixer.sees=team"
    """
    for beginning, words in OPTION_WORDS.items():
        if message.startswith(beginning):
            for pattern, option in words.items():
                message = re.sub(pattern, option, message)
    for pattern, option in SHOWN_PARTS.items():
        message = re.sub(pattern, option, message)
    return message
