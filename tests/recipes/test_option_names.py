"""Mistakes that only parts of the library find are told in the options that chose these parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.recipes.command_line import assert_one_line, call_here

DISCRETE = "task.continuous_actions=false"


@pytest.mark.parametrize(
    ("recipe", "arguments", "message"),
    [
        ("mappo", "actor.activation=foo", "error: actor.activation=foo: expected one of tanh"),
        ("mappo", "actor.num_cells=[8,0]", "error: actor.num_cells[1]=0: expected a number above 0"),
        ("mappo", "network@actor=bicnet actor.hidden_size=5", "error: actor.hidden_size=5: expected an even number"),
        ("mappo", "actor.share_params=[0,1]", "error: actor.share_params=[0, 1]: expected one parameter set for each"),
        (
            "mappo",
            "network@critic.network=gru critic.network.hidden_size=0",
            "error: critic.network.hidden_size=0: expected a number above 0",
        ),
        (
            "mappo",
            "critic.heads=network critic.network.share_params=[0,1]",
            "error: critic.network.share_params=[0, 1]: expected one parameter set for each of the 3 agents",
        ),
        ("maddpg", "critic.network.share_params=[0,1]", "error: critic.network.share_params=[0, 1]: expected one"),
        ("coma", f"{DISCRETE} critic.network.share_params=[0,1]", "error: critic.network.share_params=[0, 1]: expec"),
        ("mappo", "network@critic.network=commnet", "error: network@critic.network: the input is the team's"),
        ("happo", "network@actor=commnet", "this recipe sets it, and commnet has no such option"),
        ("mappo", "task=matrix/climbing task.payoff=[[1,2],[3]]", "error: task.payoff: expected a table of numbers"),
        ("pqn", "task.continuous_actions=true", "Q-learning needs discrete actions; use task.continuous_actions=false"),
        ("mappo", "task.params.foo=1", "error: task.params.foo is never read by navigation"),
        ("mappo", "task=pettingzoo/simple_spread task.env=mpe2/no_v3", "error: task.env=mpe2/no_v3: unknown module"),
        ("facmac", "mixer=qplex", "use task.continuous_actions=false where the task has it, or another mixer"),
        (
            "maddpg",
            "infer_policies=true minimax_epsilon=0.1",
            "error: mixer, minimax_epsilon, infer_policies: each changes the joint actions",
        ),
        (
            "mappo",
            "task=vmas/simple_tag opponents.agent=greedy_chase",
            "error: opponents.GROUP=greedy_chase: expected the 20 features of a predator",
        ),
    ],
)
def test_an_error_names_the_whole_option(recipe: str, arguments: str, message: str, tmp_path: Path) -> None:
    result = call_here(tmp_path, recipe, "device=cpu", *arguments.split())
    assert_one_line(result, message, program=f"ctde-{recipe}")
