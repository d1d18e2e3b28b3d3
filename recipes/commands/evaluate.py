"""``ctde evaluate``: whole episodes of a trained policy, as figures and as a file."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ctde_kit.errors import UserError
from ctde_kit.files import JsonObject
from ctde_kit.recipes.commands.run_arguments import read_arguments
from ctde_kit.recipes.configs.data import to_data
from ctde_kit.recipes.configs.policy_options import TRAINED, EvaluateConfig, PolicyOptions

if TYPE_CHECKING:
    from ctde_kit.recipes.wiring.saved_policies import Stage
    from ctde_kit.training import Returns

PROGRAM = "ctde evaluate"


def evaluate(arguments: list[str]) -> None:
    """Do what the command line of ``ctde evaluate`` says."""
    given = read_arguments(PROGRAM, EvaluateConfig, arguments)
    if given is None:
        return
    # Not before: it loads torch.
    from ctde_kit.recipes.wiring.saved_policies import set_stage

    output = None if given.options.output is None else Path(given.options.output)
    if output is not None and output.exists():
        raise UserError(f"output={output}: there is such a file already; choose another name")
    evaluations = []
    for run in given.runs:
        stage = set_stage(run, given.task_of(run), given.options)
        try:
            content = evaluation(stage, given.options)
        finally:
            stage.env.close()
        _print(content)
        evaluations.append(content)
        if output is None:
            print(f"  {_write_beside(run.directory, content)}")
    if output is not None:
        _write(output, evaluations)
        print(f"every episode: {output}")


def evaluation(stage: Stage, options: PolicyOptions) -> JsonObject:
    """What the file says of one run: who played what, figures with their distributions, and every episode."""
    import ctde_kit as ck
    from ctde_kit.training.distribution import Distribution

    returns = ck.evaluate(
        stage.env,
        stage.policy,
        stage.groups,
        episodes=stage.episodes,
        seed=stage.seed,
        exploration=stage.exploration,
    )
    episodes = _episodes(returns, stage)
    names = [name for name in episodes[0] if name != "episode" and not name.endswith("/returns")]
    figures = {name: Distribution.of([float(episode[name]) for episode in episodes]) for name in names}
    metrics = returns.metrics(bool(stage.task.groups_compete))
    return {
        "run": str(stage.run.directory),
        "algorithm": stage.run.config["algorithm"],
        "checkpoint": stage.checkpoint.name,
        "frames": stage.frames,
        "policy": options.policy,
        "opponents": {group: to_data(opponent) for group, opponent in options.opponents.items()},
        "task": to_data(stage.task),
        "agents": {group.name: group.n_agents for group in stage.team},
        "seed": stage.seed,
        **{f"eval/{name}": value for name, value in metrics.items()},
        "figures": {name: asdict(figure) for name, figure in figures.items()},
        "per_episode": episodes,
    }


def _episodes(returns: Returns, stage: Stage) -> list[JsonObject]:
    """One row per episode: figures over agents, how it ended, and ``GROUP/returns`` of each agent."""
    assert returns.numbers is not None
    assert returns.terminated is not None
    order = returns.numbers.argsort()
    rows: list[JsonObject] = [*returns.records(bool(stage.task.groups_compete))]
    for row, index in zip(rows, order.tolist(), strict=True):
        row["terminated"] = bool(returns.terminated[index])
        for group, values in returns.by_group.items():
            row[f"{group}/returns"] = values[index].tolist()
    return rows


def _print(content: JsonObject) -> None:
    agents = ", ".join(f"{count} {group}" for group, count in content["agents"].items())
    # What acts in place of the trained policy has learned from no frames.
    trained = f" at {content['frames']} frames" if content["policy"] in TRAINED else ""
    print(
        f"{content['run']}: {content['policy']} policy{trained}, {content['eval/episodes']} "
        f"episodes of {content['task']['name']} ({agents}), seed {content['seed']}"
    )
    figures = content["figures"]
    width = max(map(len, figures))
    print(f"  {'':{width}}  {'mean':>9} {'+-':>8} {'IQM':>9} {'5 %':>9} {'median':>9} {'95 %':>9}")
    for name, figure in figures.items():
        error = figure["standard_error"]
        shown = "       -" if error is None else f"{error:8.3f}"
        low, median, high = (figure["quantiles"][share] for share in ("0.05", "0.5", "0.95"))
        print(
            f"  {name:{width}}  {figure['mean']:9.3f} {shown} {figure['iqm']:9.3f} {low:9.3f} {median:9.3f} {high:9.3f}"
        )


def _write_beside(directory: Path, content: JsonObject) -> Path:
    """Write ``content`` to the first free ``evaluation_N.json``, so that nothing is overwritten; returns its path."""
    number = 1
    while True:
        path = directory / f"evaluation_{number}.json"
        try:
            _write(path, [content])
            return path
        except FileExistsError:
            number += 1


def _write(path: Path, evaluations: list[JsonObject]) -> None:
    text = json.dumps({"evaluations": evaluations}, indent=1) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "x") as file:
            file.write(text)
    except FileExistsError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); give output=FILE") from error
