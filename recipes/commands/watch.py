"""``ctde watch``: a video of a trained policy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ctde_kit.errors import UserError
from ctde_kit.recipes.commands.run_arguments import read_arguments
from ctde_kit.recipes.configs.policy_options import LAST, WatchConfig

if TYPE_CHECKING:
    import numpy as np
    from tensordict import TensorDictBase

    from ctde_kit.recipes.wiring.saved_policies import Stage
    from ctde_kit.training import Returns
    from ctde_kit.training.reporting import AttentionRecord, HearingRecord, ListeningRecord

    Record = AttentionRecord | HearingRecord | ListeningRecord

PROGRAM = "ctde watch"


def watch(arguments: list[str]) -> None:
    """Do what the command line of ``ctde watch`` says."""
    given = read_arguments(PROGRAM, WatchConfig, arguments)
    if given is None:
        return
    if len(given.runs) != 1:
        raise UserError(f"expected one run, found {len(given.runs)}; watch them one by one")
    # Not before: it loads torch.
    from ctde_kit.recipes.wiring.saved_policies import set_stage
    from ctde_kit.training.reporting import side_by_side, write_video
    from ctde_kit.training.reporting.video_grid import check_video

    (run,), options = given.runs, given.options
    path = _free_path(run.directory) if options.output is None else Path(options.output)
    check_video(path)
    if path.exists():
        raise UserError(f"output={path}: there is such a file already; choose another name")
    stage = set_stage(run, given.task_of(run), options, rendered=True)
    try:
        frames = side_by_side(videos(stage, options), options.height)
    finally:
        stage.env.close()
    try:
        write_video(frames, path, options.frames_per_second)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); give output=FILE") from error
    print(f"video: {path}")


def videos(stage: Stage, options: WatchConfig) -> dict[str, list[np.ndarray]]:
    """By caption, the frames of the chosen episodes, with what agents attend to and whom they listen to beside them.

    Raises:
        UserError: where the task draws nothing, or there is no such episode.
    """
    import ctde_kit as ck
    from ctde_kit.training.reporting import beside_frames, record_chosen

    render = stage.task.renderer(stage.env)
    if render is None:
        raise UserError(
            f"{stage.task.name} has no renderer, so there is nothing to watch; `ctde evaluate` gives figures"
        )
    seed, exploration = stage.seed, stage.exploration
    returns = ck.evaluate(
        stage.env, stage.policy, stage.groups, episodes=stage.episodes, seed=seed, exploration=exploration
    )
    chosen = _chosen(returns, stage, options.show)
    records = _records(stage, options, set(chosen.values()))
    watches = {number: _together(own) for number, own in records.items() if own}
    found = record_chosen(
        stage.env, stage.policy, render, set(chosen.values()), watch=watches, seed=seed, exploration=exploration
    )
    for number, own in records.items():
        for record in own:
            found[number] = beside_frames(found[number], record)
    return {caption: found[number] for caption, number in chosen.items()}


def _chosen(returns: Returns, stage: Stage, show: list[str]) -> dict[str, int]:
    """By caption, the numbers of the chosen episodes.

    Episodes are ranked by their return, averaged over all agents; where groups compete, over the groups that learned.
    """
    import torch

    assert returns.numbers is not None
    learned = [group for group in stage.groups if group not in stage.run.opponents]
    ranked = learned if stage.task.groups_compete and learned else stage.groups
    values = torch.cat([returns.by_group[group] for group in ranked], -1).mean(-1)
    order = values.argsort(stable=True)
    places = {"worst": 0, "median": (len(order) - 1) // 2, "best": len(order) - 1}
    rows = {int(number): row for row, number in enumerate(returns.numbers.tolist())}
    chosen = {}
    for name in show:
        row = int(order[places[name]]) if name in places else rows.get(int(name))
        if row is None:
            raise UserError(f"show={name}: expected the number of one of {len(rows)} episodes, from 0; give episodes=")
        title = f"{name} of {len(rows)}" if name in places else f"episode {name}"
        chosen[f"{title}: return {values[row]:.2f}"] = int(returns.numbers[row])
    return chosen


def _records(stage: Stage, options: WatchConfig, numbers: set[int]) -> dict[int, list[Record]]:
    """For each episode, records of attention, and of agents that talk, where the run has them."""
    from ctde_kit.recipes.commands.loading import load
    from ctde_kit.recipes.wiring.attending import attention_critics
    from ctde_kit.recipes.wiring.team_channels import channels_across_groups
    from ctde_kit.training.reporting import AttentionRecord, HearingRecord, ListeningRecord
    from ctde_kit.training.reporting.hearing import unweighted_channels
    from ctde_kit.training.reporting.listening import listening_channels

    own_task = stage.task == stage.run.task and options.checkpoint == LAST
    critic = stage.run.config.get("critic", {})
    critics = {}
    if own_task and isinstance(critic, dict) and critic.get("kind") == "attention":
        loaded = load(stage.run.directory, device=str(stage.env.device), trust=options.trust)
        critics = attention_critics(loaded.parts)
        loaded.parts.collector.shutdown()
    listens = len(stage.groups) == 1 and bool(listening_channels(stage.policy))
    # Of a team that talks as a whole: its only group, or groups with one channel.
    whole = len(stage.groups) == 1 or bool(channels_across_groups(stage.policy))
    hears = whole and len(unweighted_channels(stage.policy)) == 1
    records: dict[int, list[Record]] = {}
    for number in numbers:
        env = number % stage.env.batch_size[0]
        records[number] = [AttentionRecord(critics, stage.team, env)] if critics else []
        if listens:
            records[number].append(ListeningRecord(stage.policy, stage.team, env))
        if hears:
            records[number].append(HearingRecord(stage.policy, stage.team, env))
    return records


def _together(records: list[Record]) -> Callable[[TensorDictBase], None]:
    def call(step: TensorDictBase) -> None:
        for record in records:
            record(step)

    return call


def _free_path(directory: Path) -> Path:
    number = 1
    while (directory / "videos" / f"watched_{number}.gif").exists():
        number += 1
    return directory / "videos" / f"watched_{number}.gif"
