"""Bad command lines: each is one line and exit code 2, and leaves no directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctde_kit.recipes import MAPPOConfig
from ctde_kit.recipes.commands.arguments import check_arguments
from ctde_kit.recipes.commands.main import COMMANDS, LISTS
from ctde_kit.recipes.commands.options import Options
from ctde_kit.recipes.commands.recipes import RECIPES
from ctde_kit.recipes.commands.short_forms import with_whole_numbers
from tests.recipes.command_line import assert_one_line, call_here, composed


@pytest.mark.parametrize(
    ("recipe", "argument", "message"),
    [
        ("mappo", "--foo", "--foo: there is no such flag; options are NAME=VALUE, `ctde-mappo --help` lists them"),
        ("mappo", "--foo=1", "there is no such flag"),
        ("mappo", "+gama=3", "+gama=3: options need no plus sign"),
        ("mappo", "gama=3", "gama=3: there is no such option; did you mean gamma?"),
        ("mappo", "task=smax/nothing", "task=smax/nothing: there is no such task; choose one of smax/10m_vs_11m, "),
        ("mappo", "task=vmas/navgation", "there is no such task; did you mean vmas/navigation?"),
        ("mappo", "n_envs=3", "n_envs=3: there is no such option; did you mean task.n_envs?"),
        ("mappo", "task.n_agents=3", "task.n_agents=3: there is no such option; did you mean task.params.n_agents?"),
        ("mappo", "n_agents=3", "n_agents=3: there is no such option; did you mean task.params.n_agents?"),
        ("mappo", "task.lidar_range=1", "did you mean task.params.lidar_range?"),
        ("mappo", "task=pettingzoo/simple_spread task.N=4", "there is no such option; did you mean task.params.N?"),
        ("mappo", "actor.hiden_size=3", "did you mean actor.hidden_size"),
        ("mappo", "actor.hidden_size=3", "not with what is chosen here; it is an option of network@actor=bicnet, "),
        ("mappo", "layout=attention critic.sees=team", "it is an option of critic=agent_state, "),
        ("mappo", "actor=gru", "actor=gru: write network@actor=gru"),
        ("mappo", "critic=gru", "critic=gru: this is its network; write network@critic.network=gru"),
        ("mappo", "critic=counterfactual", "critic=counterfactual: it does not fit ctde-mappo; choose one of agent_st"),
        ("mappo", "-m critic=state,counterfactual", "critic=counterfactual: it does not fit ctde-mappo; choose one of"),
        ("mappo", "network@critic=gru", "network@critic=gru: say whose, as in network@critic.network=gru"),
        ("mappo", "network=gruu", "network=gruu: say whose, as in network@actor; there is no such network; did you"),
        ("mappo", "mixer=qmix", "mixer=qmix: ctde-mappo has no mixer to choose; it has task, network@actor, critic"),
        ("mappo", "evaluation=3", "it has options of its own, evaluation.every_frames, evaluation.episodes"),
        ("mappo", "help", "help: expected an option and its value, NAME=VALUE; `ctde-mappo --help` lists them"),
        ("mappo", "resume=", "resume=: expected the directory that the run printed, resume=RUN_DIR"),
        ("mappo", "resume=a resume=b", "resume: it is given twice; give it once"),
        ("mappo", "gamma=abc", "gamma=abc: expected a number"),
        ("mappo", "gamma=", "gamma=: expected a number"),
        ("mappo", "gamma=null", "gamma=null: expected a number"),
        ("mappo", "clip_value=foo", "clip_value=foo: expected a number, or null"),
        ("mappo", "lr=${seed}", "lr=${seed}: expected a value, found one that looks up another"),
        ("mappo", "seed=1,2", "seed=1,2: several values need -m, as in `ctde-mappo -m seed=1,2`"),
        ("mappo", "-m network@actor=mlp,gru actor.hidden_size=8", "actor.hidden_size=8: not with what is chosen"),
        ("mappo", "opponents=random", "expected a group and who acts for it, as in opponents.GROUP=VALUE"),
        ("mappo", "hydra.run.dir=", "hydra.run.dir=: expected a directory"),
        ("mappo", "--config-dir=/tmp", "--config-dir=/tmp: there is no such flag"),
        ("tasks", "vmas/navigatoin", "'vmas/navigatoin': there is no such task; did you mean vmas/navigation"),
        ("tasks", "balanse", "'balanse': there is no such task; did you mean vmas/balance"),
        ("describe", "task=balanse", "task=balanse: there is no such task; did you mean vmas/balance"),
        ("mappo", "callbacks=mine:log", "callbacks=mine:log: expected a list, callbacks=[mine:log]"),
        ("mappo", "minibatch_frames=400 frames_per_batch=300", "make it smaller, or raise frames_per_batch"),
        ("mappo", "task=mine.py:Scenario", "found nothing; a VMAS scenario is task=vmas/mine.py:Scenario"),
        ("mappo", "task=lbf/mine.py:Scenario", "found lbf/; a VMAS scenario is task=vmas/mine.py:Scenario"),
        ("mappo", "task=lbf/mine.py", "in it, task=vmas/mine.py:CLASS or task=pettingzoo/mine.py:FUNCTION"),
        ("cross-play", "episodes=3", "expected policies for two groups, as in ctde cross-play adversary=[RUN_DIR,"),
        ("recipes", "mappo", "mappo: `ctde recipes` takes no argument"),
        ("parts", "critic", "critic: `ctde parts` takes no argument"),
        ("mappo", "task=vmas/vm.py", "task=vmas/vm.py: name the class in it, task=vmas/vm.py:CLASS"),
        (
            "mappo",
            "task=vm.py",
            "name its kind and the class or function in it, task=vmas/vm.py:CLASS or task=pettingzo",
        ),
        ("describe", "task=pettingzoo/vm.py", "name the function in it, task=pettingzoo/vm.py:FUNCTION"),
        ("mappo", "layout=per_agent critic=attention", "critic.heads: layout=per_agent sets it, and attention has no"),
        ("benchmark", "benchmark=matrix", "output: nothing is given; say output=DIR"),
        ("benchmark", "output=b", "recipes: nothing is given; say recipes=mappo,qmix, or choose a benchmark"),
        ("compare", "nothere output=c", "nothere: there is no such directory; give directories that runs printed"),
        ("mappo", "~seed", "~seed: an option cannot be removed"),
        ("mappo", "actor=null", "actor=null: network@actor chooses it: bicnet, "),
        ("mappo", "actor=1", "actor=1: network@actor chooses it: bicnet, "),
        ("mappo", "logger=null", "logger=null: there is no such logger; choose one of csv, mlflow, tensorboard, wandb"),
        ("mappo", "task=null", "task=null: there is no such task; choose one of communication/cue, "),
        ("mappo", "network@actor=null", "network@actor=null: there is no such network; choose one of bicnet, "),
        ("qmix", "mixer=null", "mixer=null: there is no such mixer; choose one of none, qmix, qplex, vdn"),
        ("mappo", "max_grad_norm=inf", "max_grad_norm=inf: expected a finite number"),
        ("mappo", "lr=nan", "lr=nan: expected a finite number"),
        ("mappo", "actor.out_gain=nan", "actor.out_gain=nan: expected a finite number"),
        ("qmix", "replay.alpha=inf", "replay.alpha=inf: expected"),
        ("mappo", "total_frames=1e30", "total_frames=1000000000000000019884624838656: expected a number up to"),
        ("mappo", "evaluation.episodes=99999999999999999999", "evaluation.episodes=99999999999999999999: expected"),
        ("mappo", "task.max_steps=99999999999999999999", "task.max_steps=99999999999999999999: expected"),
        ("mappo", "actor.num_cells=[99999999999999999999]", "actor.num_cells[0]=99999999999999999999: expected"),
        ("qmix", "mixer.embed_dim=99999999999999999999", "mixer.embed_dim=99999999999999999999: expected"),
        ("mappo", "task.params.n_agents=99999999999999999999", "task.params.n_agents=99999999999999999999: expected"),
        ("mappo", "anneal_lr=2", "anneal_lr=2: expected true or false"),
        ("mappo", "actor.layer_norm=3", "actor.layer_norm=3: expected true or false"),
        ("qmix", "mixer.monotonic=false", "mixer.monotonic=false: here agents choose by their own values"),
        ("qmix", "replay.alpha=0.7", "replay.alpha=0.7: nothing reads it here; it is for replay.prioritized=true"),
        ("qmix", "replay.directory=/tmp", "it is for replay.stored_on=disk; leave it out, or give that, too"),
        ("mappo", "logger.project=mine", "it is for logger=wandb or logger=mlflow"),
        ("pqn", "huber_delta=2", "huber_delta=2: nothing reads it here; it is for value_loss=huber"),
        ("maddpg", "inference_entropy=0.1", "it is for infer_policies=true"),
        ("maddpg", "smoothing_limit=0.1", "it is for smoothing_deviation=0.2"),
        ("masac", "fixed_alpha=true alpha_lr=0.1", "it is for fixed_alpha=false"),
        ("masac", "target_entropy_weight=0.5", "it is for discrete actions"),
        ("coma", "distributed=ray distributed.delay=1", "coma learns only from what its current policy has collected"),
        ("happo", "distributed=ray distributed.learners=2", "the agents of happo learn in an order"),
        ("mappo", "distributed=ray distributed.collectors=7", "such as 5880"),
        ("mappo", "distributed.collectors=2", "it is an option of distributed=ray"),
        (
            "mappo",
            "distributed=ray distributed.address=here",
            "distributed.address=here: expected local, auto or HOST:PORT",
        ),
        ("maddpg", "hidden_from=zero", "it is for a recurrent network, such as network@actor=gru"),
        ("mappo", "task.continuous_actions=false samples_mc_entropy=4", "it is for continuous actions"),
        ("iql", "team_reward=sum", "it is for a mixer, such as mixer=vdn"),
        ("pqn", "+mixer.monotonic=false", "options need no plus sign"),
    ],
)
def test_one_line_and_no_directory(recipe: str, argument: str, message: str, tmp_path: Path) -> None:
    program = f"ctde-{recipe}" if recipe in RECIPES else f"ctde {recipe}" if recipe in {**LISTS, **COMMANDS} else "ctde"
    assert_one_line(call_here(tmp_path, recipe, *argument.split()), message, program=program)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(("given", "frames"), [("1e6", 1_000_000), ("2.5e3", 2_500), ("12", 12)])
def test_whole_numbers_may_have_an_exponent(given: str, frames: int) -> None:
    assert composed("mappo", with_whole_numbers(f"total_frames={given}")).total_frames == frames
    assert MAPPOConfig(total_frames=float(given)).total_frames == frames


def test_options_of_a_chosen_part_are_known() -> None:
    """Chosen directly, by a layout, or by a preset; with -m by every job."""
    for recipe, line in (
        ("mappo", "network@actor=gru actor.hidden_size=8 actor.share_params=[0,0,1] actor.out_gain=null"),
        ("mappo", "layout=attention critic.embed_dim=8 critic.network.num_cells=[8]"),
        ("mappo", "layout=averaged critic.average_every=3"),
        ("maddpg", "preset=distributed_maddpg task.params.max_cycles=3 task.env=mpe2/simple_tag_v3"),
        ("maddpg", "replay=sequences replay.form.length=3 replay.directory=/tmp/a=b"),
        ("mappo", "task=matrix/climbing task.payoff=[[1,2],[3,4]] video=yes anneal_lr=0 logger.project=2024"),
        ("mappo", "-m network@actor=gru,commnet actor.hidden_size=8,16 lr=1e-3,2 seed=range(3)"),
    ):
        check_arguments(f"ctde-{recipe}", Options.of(RECIPES[recipe].config, recipe), line.split())


def test_a_file_is_not_said_to_be_missing(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("")
    for program in ("evaluate", "watch", "export", "doctor"):
        result = call_here(tmp_path, program, "mine.py")
        assert_one_line(result, "mine.py: it is a file, and no run directory; give the", program=f"ctde {program}")
    result = call_here(tmp_path, "compare", "mine.py", "output=c")
    assert_one_line(result, "mine.py: it is a file; give directories that runs printed", program="ctde compare")


def test_resume_is_no_command(tmp_path: Path) -> None:
    result = call_here(tmp_path, "resume", "run")
    assert_one_line(result, "resume: there is no such command; go on with `ctde RECIPE resume=RUN_DIR`", program="ctde")
