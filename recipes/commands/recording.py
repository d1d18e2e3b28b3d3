"""The recorded episode of a run that has ended: a video, and a plot of what its critics attend to."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from ctde_kit.errors import UserError
from ctde_kit.modules import TeamPolicy
from ctde_kit.recipes.configs.recipe import RecipeConfig
from ctde_kit.recipes.wiring.attending import attention_critics
from ctde_kit.recipes.wiring.transforms import with_transforms
from ctde_kit.specs import TeamSpec
from ctde_kit.training import Parts, RunDirectory, record_episode, unchanged_random_state
from ctde_kit.training.reporting import AttentionRecord, beside_frames, plot_attention, write_gif


def recording(
    config: RecipeConfig,
    parts: Parts,
    team: TeamSpec,
    directory: RunDirectory,
    seed: int,
    device: str,
    closing: ExitStack,
) -> Callable[[], None] | None:
    """A function that records a greedy episode: as a video if asked for, and as a plot of what its critics attend to.

    ``None`` where there is neither a video nor an attention critic. A task that cannot be drawn is an error here,
    before training starts.
    """
    critics = attention_critics(parts)
    if not config.video and not critics:
        return None
    policy = parts.policy
    assert isinstance(policy, TeamPolicy)
    build = config.task.build_rendered if config.video else config.task.build_evaluation
    env = with_transforms(build(seed=seed, device=device, episodes=1), team, policy)
    closing.callback(env.close)
    render = config.task.renderer(env) if config.video else None
    if config.video and render is None:
        raise UserError(f"video=true: {config.task.name} has no renderer; leave video=false")
    if render is not None:
        with unchanged_random_state():
            env.reset()
            render()

    def record() -> None:
        attention = AttentionRecord(critics, team) if critics else None
        frames, _ = record_episode(env, policy, render, seed=seed, watch=attention)
        if attention is not None:
            title = f"attention of {config.algorithm}'s critics on {config.task.name}, a greedy episode"
            plot_attention(attention, directory.plots / "attention.png", title)
            frames = beside_frames(frames, attention) if frames else frames
        if config.video:
            directory.videos.mkdir(exist_ok=True)
            write_gif(frames, directory.videos / "greedy_episode.gif")

    return record
