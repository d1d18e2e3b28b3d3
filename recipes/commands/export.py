"""``ctde export``: a trained policy as files that run without this package."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ctde_kit.errors import UserError
from ctde_kit.files import JsonObject
from ctde_kit.recipes.commands.export_example import EXAMPLES
from ctde_kit.recipes.commands.run_arguments import read_arguments
from ctde_kit.recipes.configs.policy_options import ExportConfig

if TYPE_CHECKING:
    from ctde_kit.modules.export.greedy_step import GreedyStep, Port
    from ctde_kit.recipes.wiring.saved_policies import Stage

PROGRAM = "ctde export"


def export(arguments: list[str]) -> None:
    """Do what the command line of ``ctde export`` says."""
    given = read_arguments(PROGRAM, ExportConfig, arguments)
    if given is None:
        return
    if len(given.runs) != 1:
        raise UserError(f"expected one run, found {len(given.runs)}; export them one by one")
    # Not before: it loads torch.
    from ctde_kit.modules.export.policy_files import check_installed
    from ctde_kit.recipes.wiring.saved_policies import set_stage

    (run,), options = given.runs, given.options
    check_installed(options.format)
    directory = run.directory / f"export_{options.format}" if options.output is None else Path(options.output)
    if directory.exists():
        raise UserError(f"output={directory}: it exists already; choose another directory")
    stage = set_stage(run, given.task_of(run), options)
    try:
        _write_all(stage, directory, options.format)
    finally:
        stage.env.close()


def _write_all(stage: Stage, directory: Path, form: str) -> None:
    files = _files(stage, form)  # refuses before anything is written
    try:
        directory.mkdir(parents=True)
        try:
            models = _write_models(stage, files, directory, form)
            content = {
                "run": str(stage.run.directory),
                "algorithm": stage.run.config["algorithm"],
                "checkpoint": stage.checkpoint.name,
                "frames": stage.frames,
                "task": stage.task.name,
                "format": form,
                "models": models,
            }
            (directory / "model.json").write_text(json.dumps(content, indent=2) + "\n")
            (directory / "example.py").write_text(EXAMPLES[form])
        except BaseException:
            shutil.rmtree(directory)
            raise
    except OSError as error:
        raise UserError(
            f"{error.filename or directory} cannot be written ({error.strerror}); give output=DIR"
        ) from error
    for path in sorted(directory.iterdir()):
        print(f"  {path}")


def _write_models(
    stage: Stage, files: Mapping[str, list[tuple[str, int, GreedyStep]]], directory: Path, form: str
) -> list[JsonObject]:
    """Write each file and play recorded observations with it; returns what ``model.json`` says of each."""
    from ctde_kit.modules.export.policy_files import write_policy
    from ctde_kit.recipes.wiring.export_parity import compare, record

    recorded, models = record(stage), []
    for name, agents in files.items():
        call = write_policy(agents[0][2], directory / name, form)
        for group, agent, step in agents:
            parity = compare(recorded, step, call, agent)
            parity.check(f"agent {agent} of {group} in {name}")
            kind = "share of choices that differ" if step.group.action.discrete else "largest difference"
            shown = f"{kind} {parity.difference:.1e} in {parity.observations} observations"
            print(f"{name}: agent {agent} of {group}: {shown}")
        models.append(_described(name, agents, stage))
    return models


def _files(stage: Stage, form: str) -> dict[str, list[tuple[str, int, GreedyStep]]]:
    """For each file, the agents that it is for: agents of one group that learned and whose policies are equal."""
    from ctde_kit.modules.export.greedy_step import GreedyStep

    files: dict[str, list[tuple[str, int, GreedyStep]]] = {}
    for group in stage.team:
        if group.name in stage.run.opponents or group.name not in stage.policy.actors:
            continue
        alike: list[list[tuple[str, int, GreedyStep]]] = []
        for agent in range(group.n_agents):
            step = GreedyStep(stage.policy.actors[group.name], agent).cpu()
            same = next((agents for agents in alike if _equal(agents[0][2], step)), None)
            if same is None:
                alike.append(same := [])
            same.append((group.name, agent, step))
        for agents in alike:
            name = group.name if len(alike) == 1 else f"{group.name}_{'_'.join(str(agent) for _, agent, _ in agents)}"
            files[f"{name}.{form}"] = agents
    return files


def _equal(one: GreedyStep, other: GreedyStep) -> bool:
    ours, theirs = one.state(), other.state()
    return ours.keys() == theirs.keys() and all(value.equal(theirs[name]) for name, value in ours.items())


def _described(name: str, agents: list[tuple[str, int, GreedyStep]], stage: Stage) -> JsonObject:
    group, agent, step = agents[0]
    action = step.group.action
    return {
        "file": name,
        "agents": [{"group": owner, "agent": index} for owner, index, _ in agents],
        "inputs": [_port(port) for port in step.inputs],
        "outputs": [_port(port) for port in step.outputs],
        "action": {
            "kind": action.kind,
            "meaning": stage.task.action_meaning(stage.env, group, agent),
            "sizes": list(action.sizes),
            "low": step.low.tolist(),
            "high": step.high.tolist(),
        },
    }


def _port(port: Port) -> JsonObject:
    return {**asdict(port), "shape": ["batch", *port.shape]}
