"""The study of critics' layouts: its runs from the command line, its statistics, and its page."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from ctde_kit.errors import UserError
from ctde_kit.recipes import AttentionCriticConfig
from ctde_kit.recipes.commands.critic_layouts import study_options
from ctde_kit.recipes.commands.loading import read_config
from ctde_kit.recipes.studies.critic_layouts.claims import Claim, claims, distinct
from ctde_kit.recipes.studies.critic_layouts.page import scores, write_page
from ctde_kit.recipes.studies.critic_layouts.runs import Curves, read_curves
from ctde_kit.training.reporting import Estimate, interval_estimates
from tests.recipes.command_line import assert_one_line, call_here, composed

CONF = Path(__file__).parents[2] / "recipes" / "conf"
SMALL = [
    "study=critic_layouts",
    "layout=averaged_random,decentralized",
    "seed=3,5",
    "task.n_envs=2",
    "task.max_steps=5",
    "frames_per_batch=20",
    "minibatch_frames=10",
    "epochs=1",
    "total_frames=60",
    "evaluation.every_frames=20",
    "evaluation.episodes=2",
    "checkpoint.every_frames=20",
    "compile=off",
    "hydra.sweep.dir=runs",
]
OPTIONS = {
    "central": ("team", "agent", "fixed", True, None),
    "central_random": ("team", "agent", "random", True, None),
    "central_one": ("team", "one", "fixed", True, None),
    "shared_own_first": ("team", "network", "own_first", True, None),
    "per_agent": ("team", "network", "fixed", False, None),
    "per_agent_own_first": ("team", "network", "own_first", False, None),
    "per_agent_random": ("team", "network", "random", False, None),
    "averaged": ("team", "network", "fixed", False, 150),
    "averaged_own_first": ("team", "network", "own_first", False, 150),
    "averaged_random": ("team", "network", "random", False, 150),
    "clusters": ("team", "network", "own_first", [0, 0, 1], None),
    "decentralized": ("observation", "agent", "fixed", True, None),
}


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interval_estimates, "RESAMPLES", 400)
    monkeypatch.setattr(interval_estimates, "CURVE_RESAMPLES", 50)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layouts, two seeds, trained by the preset."""
    folder = tmp_path_factory.mktemp("study")
    result = call_here(folder, "mappo", *SMALL)
    assert result.returncode == 0, result.stderr
    return folder


def rows_of(run: Path) -> list[dict[str, float]]:
    """A run's metrics, but for the time that they took."""
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: float(value) for name, value in row.items() if name != "seconds"} for row in rows]


def test_every_layout_is_the_critic_that_it_names() -> None:
    names = {path.stem for path in (CONF / "layout").glob("*.yaml")}
    assert names == {*OPTIONS, "attention"}
    swept = yaml.safe_load((CONF / "study" / "critic_layouts.yaml").read_text())["hydra"]["sweeper"]["params"]
    assert set(swept["layout"].split(",")) == names
    assert swept["seed"] == "0,1,2,3,4"
    for name in names:
        recipe = "maddpg" if name in ("attention", "averaged_own_first") else "mappo"
        critic: Any = composed(recipe, f"layout={name}").critic
        if name == "attention":
            assert isinstance(critic, AttentionCriticConfig)
            continue
        options = (critic.sees, critic.heads, critic.ordering, critic.network.share_params, critic.average_every)
        assert options == OPTIONS[name]


@pytest.mark.slow
def test_the_preset_trains_every_layout_with_every_seed(study: Path) -> None:
    for layout in ("averaged_random", "decentralized"):
        for seed in (3, 5):
            config = read_config(study / "runs" / layout / f"seed_{seed}")
            assert config.seed == seed
            assert config.critic.average_every == (150 if layout == "averaged_random" else None)
    curves = read_curves(study / "runs", study_options)
    assert curves.seeds == [3, 5]
    assert curves.frames.tolist() == [20, 40, 60]
    summary = json.loads((study / "runs" / "decentralized" / "seed_5" / "summary.json").read_text())
    assert curves.returns["decentralized"].shape == (2, 3)
    assert curves.returns["decentralized"][1, -1] == pytest.approx(summary["eval/return_mean"])


def test_a_study_that_was_stopped_goes_on_with_what_is_missing(study: Path) -> None:
    stopped = study / "runs" / "decentralized" / "seed_5"
    before = {path: path.stat().st_mtime_ns for path in study.glob("runs/*/*/summary.json")}
    rows = rows_of(stopped)
    (stopped / "summary.json").unlink()
    (stopped / "checkpoints" / "frames_60.pt").unlink()
    result = call_here(study, "mappo", *SMALL)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("(ended before)") == 3
    assert (stopped / "summary.json").exists()
    changed = {path for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert changed == {stopped / "summary.json"}
    assert rows_of(stopped) == rows


def test_a_run_that_was_stopped_before_its_first_checkpoint_begins_anew(study: Path) -> None:
    stopped = study / "runs" / "averaged_random" / "seed_3"
    rows = rows_of(stopped)
    (stopped / "summary.json").unlink()
    for path in (stopped / "checkpoints").iterdir():
        path.unlink()
    result = call_here(study, "mappo", *SMALL, "layout=averaged_random", "seed=3")
    assert result.returncode == 0, result.stderr
    assert rows_of(stopped) == rows


def test_a_study_with_other_options_leaves_the_runs_alone(study: Path) -> None:
    result = call_here(study, "mappo", *SMALL, "gamma=0.5", "layout=decentralized", "seed=3")
    assert_one_line(result, "holds a run with other options: choose another hydra.sweep.dir", program="ctde-mappo")
    result = call_here(study, "mappo", *SMALL, "hydra.run.dir=elsewhere")
    assert_one_line(result, "use hydra.sweep.dir", program="ctde-mappo")


def test_report_from_the_command_line(study: Path) -> None:
    result = call_here(study, "critic-layouts", "runs=runs", "output=out")
    assert result.returncode == 0, result.stderr
    page = (study / "out" / "critic_layouts.md").read_text()
    assert "n_agents=3, shared_rew=false, max_steps=5, n_envs=2, continuous_actions=true" in page
    curves = read_curves(study / "runs", study_options)
    content = json.loads((study / "out" / "critic_layouts.json").read_text())
    assert content["returns"]["averaged_random"] == curves.returns["averaged_random"].tolist()
    command = re.search(r"ctde-mappo (study=.*)", page)
    assert command is not None
    options = set(command[1].split())
    assert {"layout=averaged_random,decentralized", "seed=3,5", "task=vmas/navigation", "task.n_envs=2"} <= options
    assert options - {"task=vmas/navigation"} == {option for option in SMALL if not option.startswith("hydra.")}
    for value in curves.returns["averaged_random"][:, -1]:
        assert f"{value:.3f}" in page
    assert (study / "out" / "critic_layouts.png").stat().st_size > 10_000


def test_reports_of_nothing_of_unfinished_and_of_unequal_runs(study: Path, tmp_path: Path) -> None:
    report = "critic-layouts"
    program = "ctde critic-layouts"
    assert_one_line(call_here(tmp_path, report), "it holds no LAYOUT/seed_SEED", program=program)
    assert_one_line(call_here(tmp_path, report, "run=x"), "run=x: there is no such option", program=program)
    copy = tmp_path / "runs"
    for path in study.glob("runs/*/seed_*"):
        target = copy / path.relative_to(study / "runs")
        target.mkdir(parents=True)
        for name in ("config.yaml", "metrics.csv", "summary.json"):
            (target / name).write_text((path / name).read_text())
    run = copy / "decentralized" / "seed_3"
    config = run / "config.yaml"
    # Without its last line, the checksum, it is the user's who changed it.
    config.write_text("".join(config.read_text().splitlines(True)[:-1]).replace("gamma: 0.9", "gamma: 0.8"))
    with pytest.raises(UserError, match=r"gamma is not what .*averaged_random.seed_3 has"):
        read_curves(copy, study_options)
    config.write_text(config.read_text().replace("gamma: 0.8", "gamma: 0.9"))
    config.write_text(config.read_text().replace("sees: observation", "sees: team"))
    with pytest.raises(UserError, match=r"the runs of decentralized have several critics"):
        read_curves(copy, study_options)
    config.write_text(config.read_text().replace("sees: team", "sees: observation"))
    (run / "summary.json").unlink()
    with pytest.raises(UserError, match=r"decentralized.seed_3 has not ended"):
        read_curves(copy, study_options)
    for path in run.iterdir():
        path.unlink()
    run.rmdir()
    with pytest.raises(UserError, match=r"decentralized has seeds \[5\], averaged_random has \[3, 5\]"):
        read_curves(copy, study_options)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no LAYOUT"):
        read_curves(tmp_path / "empty", study_options)


def test_claims_are_about_all_layouts_but_their_own_variants() -> None:
    layouts = ["attention", "averaged", "averaged_random", "central", "central_one", "central_random"]
    found = {claim.expected: claim.pairs for claim in claims(layouts)}
    assert found == {
        "above": (("central", "attention"), ("central", "averaged"), ("central", "averaged_random")),
        "below": tuple(("averaged", name) for name in ("attention", "central", "central_one", "central_random")),
        "alike": (("averaged_random", "averaged"), ("central_random", "central")),
    }
    pairs = [pair for claim in claims(layouts) for pair in claim.pairs]
    assert distinct(pairs) == [pair for pair in pairs if pair != ("averaged", "central")]
    assert claims(["attention", "clusters"]) == []


@pytest.mark.parametrize(
    ("expected", "first", "second", "verdict"),
    [
        ("above", 1, 1, "Confirmed; 2 of 2 differences are beyond noise: a above b, a above c."),
        ("above", 1, 0, "Not confirmed; 1 of 2 differences are beyond noise: a above b."),
        ("above", 1, -1, "Contradicted; 2 of 2 differences are beyond noise: a above b, a below c."),
        ("below", -1, -1, "Confirmed; 2 of 2 differences are beyond noise: a below b, a below c."),
        ("below", 0, 0, "Not confirmed; 0 of 2 differences are beyond noise."),
        ("alike", 0, 0, "Not contradicted; 0 of 2 differences are beyond noise."),
        ("alike", 0, -1, "Contradicted; 1 of 2 differences are beyond noise: a below c."),
    ],
)
def test_verdicts(expected: str, first: int, second: int, verdict: str) -> None:
    claim = Claim("it is said", expected, (("a", "b"), ("a", "c")))
    found = {
        pair: Estimate(sign, sign - 0.5, sign + 0.5) for pair, sign in zip(claim.pairs, (first, second), strict=True)
    }
    assert claim.verdict(found) == verdict


def test_the_page_says_what_the_runs_say(study: Path, tmp_path: Path) -> None:
    frames = np.array([10, 20])
    spread = np.linspace(-0.01, 0.01, 5)
    returns = {
        "central": np.stack([0.2 + spread, 0.9 + spread], 1),
        "averaged": np.stack([0.1 + spread, 0.5 + spread], 1),
        "averaged_random": np.stack([0.1 - spread, 0.5 - spread], 1),
    }
    config = read_curves(study / "runs", study_options).config
    curves = Curves(config, [0, 1, 2, 3, 4], frames, returns)
    assert scores(curves, "mean")["central"][2] == pytest.approx(0.55)
    text = write_page(curves, tmp_path, "Written now.")[0].read_text()
    one = Curves(config, [0], frames, {name: values[:1] for name, values in returns.items()})
    assert "One seed decides nothing." in write_page(one, tmp_path / "one", "Written now.")[0].read_text()
    assert "*One central critic does best.* Confirmed; 2 of 2" in text
    assert "*Averaging the critics' parameters does worst.* Confirmed; 1 of 1" in text
    assert "all 6 comparisons" in text
    assert "| `central` less `averaged` | +0.400 |" in text
    assert "*The ordering makes no significant difference.* Not contradicted; 0 of 1" in text
    assert "| `central` | 0.900 (" in text
    assert text.index("| `central` |") < text.index("| `averaged` |")
