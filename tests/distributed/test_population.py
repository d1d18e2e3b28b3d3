"""Populations without Ray: the same numbers as by hand, resumed or not, and mistakes in one line."""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ctde_kit.distributed import LocalProcesses, rank_seed
from ctde_kit.errors import RunStopped, UserError
from ctde_kit.recipes import (
    COMAConfig,
    MADDPGConfig,
    MAPPOConfig,
    OneProcess,
    QMIXConfig,
    RayDistribution,
    SyncConfig,
    VmasTask,
    load,
    start,
    start_population,
)
from ctde_kit.recipes.commands.loading import read_population
from ctde_kit.recipes.commands.population_runs import resume_population
from ctde_kit.recipes.commands.running import resume
from ctde_kit.recipes.wiring.evaluating import SCORING_SEED
from ctde_kit.recipes.wiring.membership import judged
from ctde_kit.recipes.wiring.population_directory import PopulationDirectory
from ctde_kit.recipes.wiring.transforms import with_transforms
from ctde_kit.specs import TeamSpec
from ctde_kit.training import evaluate, iterate, random_state, restore_random_state
from tests.distributed.populations import LossyProcesses, content, small_population
from tests.recipes.resuming import same

pytestmark = pytest.mark.usefixtures("no_curves")


def train(config: MADDPGConfig, path: Path, **options: Any) -> dict[str, Any]:
    return start_population(config, path, **{"processes": LocalProcesses, **options})


@pytest.fixture(scope="module")
def genetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A population that has ended."""
    path = tmp_path_factory.mktemp("populations") / "genetic"
    train(small_population(members=3), path)
    return path


def test_one_member_equals_a_local_run_bit_for_bit(tmp_path: Path) -> None:
    config = small_population(members=1)
    summary = train(config, tmp_path / "population")
    alone = start(replace(config, distributed=OneProcess()), tmp_path / "alone")
    ours, theirs = content(tmp_path / "population" / "members" / "0"), content(tmp_path / "alone")
    for part in ("parts", "random", "frames"):
        assert same(ours[part], theirs[part]), part
    assert summary["eval/return_mean"] == alone["eval/return_mean"]
    assert summary["best"] == {"return_mean": 0}


def by_hand(config: MADDPGConfig, members: int) -> tuple[list[Any], list[float], int]:
    """Each member's parts after three iterations; the scores after the second, and whose critics the others got."""
    parts, loops, streams = [], [], []
    for rank in range(members):
        seed = rank_seed(config.seed, rank)
        parts.append(replace(config, seed=seed, distributed=OneProcess()).build())
        loops.append(iterate(parts[-1]))
        streams.append(random_state())
    scores, best = [], 0
    for iteration in range(3):
        for rank, loop in enumerate(loops):
            restore_random_state(streams[rank])
            next(loop)
            streams[rank] = random_state()
        if iteration == 1:
            scores = [score(config, part) for part in parts]
            best = scores.index(max(scores))
            critics = {
                name: value.clone()
                for name, value in parts[best].update.losses.state_dict().items()
                if ".critics." in name or ".target_networks.critic_" in name
            }
            for part in parts:
                part.update.losses.load_state_dict(critics, strict=False)
    return parts, scores, best


def score(config: MADDPGConfig, parts: Any) -> float:
    team, seed = TeamSpec.from_env(parts.collector.env), SCORING_SEED + config.seed
    env = with_transforms(config.task.build_evaluation(seed=seed, device="cpu", episodes=4), team, parts.policy)
    returns = evaluate(env, parts.policy, ["agents"], episodes=4, seed=seed)
    return returns.by_group["agents"].mean(-1).mean().item()


def test_a_genetic_population_is_what_it_is_by_hand(genetic: Path) -> None:
    parts, scores, best = by_hand(small_population(members=3), members=3)
    assert len(set(scores)) == 3
    record = PopulationDirectory(genetic).exchanges()
    assert len(record) == 1
    assert record[0]["frames"] == 120
    assert record[0]["best"] == {"return_mean": best}
    assert [value for _, value in record[0]["scores"]["return_mean"]] == scores
    for rank, part in enumerate(parts):
        saved = content(genetic / "members" / str(rank))["parts"]
        assert same(saved["update"], part.update.state_dict()), rank
        assert same(saved["policy"], part.policy.state_dict()), rank


def test_without_an_exchange_members_are_runs_of_their_own(tmp_path: Path) -> None:
    config = small_population(sync={"what": "none"}, total_frames=120)
    train(config, tmp_path / "independent")
    start(replace(config, seed=rank_seed(config.seed, 1), distributed=OneProcess()), tmp_path / "alone")
    ours = content(tmp_path / "independent" / "members" / "1")["parts"]
    assert same(ours, content(tmp_path / "alone")["parts"])


def test_the_summary_has_the_best_member_and_all_others(genetic: Path) -> None:
    summary = json.loads((genetic / "summary.json").read_text())
    runs = [json.loads((genetic / "members" / str(rank) / "summary.json").read_text()) for rank in range(3)]
    chosen = [run["selection/return_mean"] for run in runs]
    assert summary["best"]["return_mean"] == chosen.index(max(chosen))
    assert summary["eval/return_mean"] == runs[summary["best"]["return_mean"]]["eval/return_mean"]
    assert [member["eval/return_mean"] for member in summary["members"]] == [run["eval/return_mean"] for run in runs]
    assert [member["seed"] for member in summary["members"]] == [rank_seed(0, rank) for rank in range(3)]
    assert (summary["frames"], summary["frames_of_all"], summary["exchanges"]) == (180, 540, 1)
    assert (genetic / "plots" / "members_return_mean.png").stat().st_size > 1000


def test_a_member_is_an_ordinary_run(genetic: Path, tmp_path: Path) -> None:
    loaded = load(genetic / "members" / "1")
    assert loaded.frames == 180
    # A callback of the configuration would switch `compile=auto` off.
    assert loaded.config.callbacks == []
    with pytest.raises(UserError, match="is a population: give the run of a member"):
        load(genetic)


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A population of two that has ended after one iteration."""
    path = tmp_path_factory.mktemp("populations") / "short"
    train(small_population(total_frames=60), path)
    return path


def test_a_member_can_go_on_alone(short: Path, tmp_path: Path) -> None:
    run = shutil.copytree(short / "members" / "1", tmp_path / "run")
    assert resume(replace(load(run).config, total_frames=120), run)["frames"] == 120


@pytest.mark.slow
@pytest.mark.parametrize(("member", "meeting"), [(0, 1), (1, 3), (2, 4)])
def test_a_lost_member_sends_all_back_to_their_last_checkpoint(
    genetic: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, member: int, meeting: int
) -> None:
    losses = [(f"member {member} of 3", meeting)]
    summary = train(small_population(members=3), tmp_path / "lossy", processes=partial(LossyProcesses, losses))
    assert not losses
    warnings = [record.message for record in caplog.records if "was lost" in record.message]
    assert len(warnings) == 1
    assert "restart 1 of 3" in warnings[0]
    assert_same_population(tmp_path / "lossy", genetic)
    assert summary["exchanges"] == 1


def assert_same_population(ours: Path, theirs: Path) -> None:
    for rank in range(3):
        ends = [content(path / "members" / str(rank)) for path in (ours, theirs)]
        for part in ("parts", "random", "on_iteration"):
            assert same(ends[0][part], ends[1][part]), (rank, part)
    assert PopulationDirectory(ours).exchanges() == PopulationDirectory(theirs).exchanges()


@pytest.mark.slow
def test_more_losses_than_restarts_end_the_population_and_it_can_be_resumed(
    genetic: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, losses = tmp_path / "lost", [("member 1 of 3", 1), ("member 2 of 3", 2)]
    config = small_population(members=3, restarts=1)
    with pytest.raises(UserError, match=r"restarts=1 allows no further start.*resume=.*lost"):
        train(config, path, processes=partial(LossyProcesses, losses))
    assert not (path / "summary.json").exists()
    told = "member 1 of 3 was lost (ActorDiedError): all members go on from 60 frames (restart 1 of 1)"
    assert told in [record.message for record in caplog.records]
    assert PopulationDirectory(path).version(3).frames == 120
    with contextlib.redirect_stdout(None):
        resume_population(read_population(PopulationDirectory(path)), path, processes=LocalProcesses)
    assert_same_population(path, genetic)


def test_a_population_goes_on_with_more_frames(short: Path, tmp_path: Path) -> None:
    path = shutil.copytree(short, tmp_path / "population")
    config = read_population(PopulationDirectory(path))
    with pytest.raises(UserError, match="has 60 frames already; ask for more"):
        resume_population(config, path, processes=LocalProcesses)
    summary = resume_population(replace(config, total_frames=120), path, processes=LocalProcesses)
    assert [member["frames"] for member in summary["members"]] == [120, 120]
    with pytest.raises(UserError, match=r"holds a run already; .* resume_population\(config, path\)"):
        train(config, path)
    with pytest.raises(UserError, match=r"gamma=0\.5: the run in \S+ has 0\.95; give .*start_population was given"):
        resume_population(replace(config, gamma=0.5, total_frames=180), str(path), processes=LocalProcesses)
    with pytest.raises(UserError, match=r"holds a run already; .* resume_population\(config, path\)"):
        start(replace(config, distributed=OneProcess()), path)
    with pytest.raises(UserError, match=r"holds a run already; .* go on with it, resume\(config, path\)"):
        start_population(config, path / "members" / "0", processes=LocalProcesses)
    with pytest.raises(UserError, match="there is no such directory"):
        resume_population(config, tmp_path / "nothing", processes=LocalProcesses)
    assert not (tmp_path / "nothing").exists()


def test_another_layout_is_refused(short: Path) -> None:
    config = small_population(members=3, total_frames=120)
    with pytest.raises(UserError, match=r"population of 2 members, found distributed\.members=3"):
        resume_population(config, short, processes=LocalProcesses)


class Stopping(LocalProcesses):
    """Asks to stop as soon as members are there."""

    def __init__(self) -> None:
        import os
        import signal

        super().__init__()
        os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_ends_all_members_and_says_how_to_go_on(tmp_path: Path) -> None:
    path = tmp_path / "population"
    with pytest.raises(RunStopped, match=r"stopped; go on with ctde-maddpg resume=.*population$"):
        train(small_population(), path, processes=Stopping)
    assert PopulationDirectory(path).version(2).frames == 60
    assert not (path / ".owner").exists()
    assert not (path / "members" / "1" / ".owner").exists()


def test_what_a_member_raises_names_it(tmp_path: Path) -> None:
    config = small_population()
    task = replace(config.task, params={**config.task.params, "x_semidim": "wide"})
    with pytest.raises(UserError, match="member 0: scenario argument 'x_semidim'"):
        train(replace(config, task=task), tmp_path / "population")
    assert not (tmp_path / "population" / "members").exists()


@pytest.mark.slow
def test_groups_that_compete_have_a_best_member_each(tmp_path: Path) -> None:
    task = VmasTask("vmas/simple_tag", n_envs=6, max_steps=7, groups_compete=True)
    summary = train(small_population(task=task, total_frames=120, sync={"every": 60}), tmp_path / "population")
    assert summary["best"].keys() == {"adversary/return_mean", "agent/return_mean"}
    for group in ("adversary", "agent"):
        best = summary["members"][summary["best"][f"{group}/return_mean"]]
        assert summary[f"eval/{group}/return_sum"] == best[f"eval/{group}/return_sum"]
    records = PopulationDirectory(tmp_path / "population").exchanges()
    assert len(records) == 1
    assert all(record["best"].keys() == summary["best"].keys() for record in records)


def test_what_decides() -> None:
    compete = MADDPGConfig(task=VmasTask("vmas/simple_tag", n_envs=6, groups_compete=True))
    assert judged(compete, ["adversary", "agent"]) == {
        "adversary/return_mean": ["adversary"],
        "agent/return_mean": ["agent"],
    }
    hunters = replace(compete, checkpoint=replace(compete.checkpoint, metric="eval/adversary/return_sum"))
    assert judged(hunters, ["adversary", "agent"]) == {"adversary/return_sum": ["adversary"]}
    with pytest.raises(UserError, match="a group that learns"):
        judged(hunters, ["agent"])
    assert judged(MADDPGConfig(), ["agents"]) == {"return_mean": ["agents"]}


GENETIC = RayDistribution(members=4, sync=SyncConfig(what="best_critic"))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: QMIXConfig(distributed=GENETIC), "qmix has no critics"),
        (lambda: MAPPOConfig(distributed=GENETIC, normalize_observations=True), "normalize_observations=true"),
        (lambda: MADDPGConfig(distributed=GENETIC, normalize_rewards=True), "normalize_rewards=true"),
        (lambda: MADDPGConfig(distributed=replace(GENETIC, members=1)), "nobody to exchange with"),
        (lambda: RayDistribution(members=2, collectors=2), "distributed.members=2"),
        (lambda: RayDistribution(members=0), "distributed.members=0"),
        (lambda: SyncConfig(what="critic"), "distributed.sync.what"),
        (lambda: SyncConfig(every=0), "distributed.sync.every"),
        (lambda: SyncConfig(end_every=0), "distributed.sync.end_every"),
        (lambda: SyncConfig(moments="forget"), "distributed.sync.moments"),
        (lambda: MADDPGConfig(distributed=GENETIC).build(), "these are 4 runs"),
    ],
)
def test_mistakes_are_one_line(make: Any, words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        make()
    assert "\n" not in str(error.value)


def test_recipes_with_critics_may_exchange_them() -> None:
    for recipe in (MADDPGConfig, MAPPOConfig, COMAConfig):
        task = {} if recipe is not COMAConfig else {"task": VmasTask("vmas/navigation", continuous_actions=False)}
        assert recipe(distributed=GENETIC, **task).distributed.sync.exchanges
    assert QMIXConfig(distributed=RayDistribution(members=2)).distributed.n_members == 2
