"""The study's page: curves, a table, and a plain sentence on each claim."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ctde_kit.files import JsonObject
from ctde_kit.recipes.studies.critic_layouts.claims import claims, distinct
from ctde_kit.recipes.studies.critic_layouts.runs import Curves
from ctde_kit.training.reporting.figures import new_figure
from ctde_kit.training.reporting.interval_estimates import (
    CONFIDENCE,
    RESAMPLES,
    differences,
    interquartile_means,
)

NAME = "critic_layouts"
MEASURES = {
    "final": "the final policy's return",
    "mean": "the mean of all evaluations of a run, which is higher the sooner it learns",
}


def write_page(curves: Curves, output: Path, made: str) -> list[Path]:
    """Write ``critic_layouts.md``, ``.png`` and ``.json`` (every seed's evaluations); returns their paths.

    Args:
        curves: the study's runs.
        output: a directory; it is made.
        made: when and on what, a sentence for the page.
    """
    output.mkdir(parents=True, exist_ok=True)
    paths = [output / f"{NAME}.{suffix}" for suffix in ("md", "png", "json")]
    text = ["# Layouts of critics", "", _introduction(curves, made), "", *_table(curves), "", *_claims(curves), ""]
    text += [f"![greedy return over frames]({NAME}.png)", "", *_command(curves)]
    paths[0].write_text("\n".join(text) + "\n")
    plot_curves(curves, paths[1])
    content = {
        "config": {key: value for key, value in curves.config.items() if key not in ("critic", "seed")},
        "made": made,
        "seeds": curves.seeds,
        "frames": curves.frames.tolist(),
        "returns": {name: values.tolist() for name, values in curves.returns.items()},
    }
    paths[2].write_text(json.dumps(content, indent=1) + "\n")
    return paths


def plot_curves(curves: Curves, path: Path) -> None:
    """A panel for each family of layouts: the interquartile mean over seeds, and its interval as a band."""
    estimates = interquartile_means({name: values[:, None] for name, values in curves.returns.items()})
    panels = _families(list(curves.returns))
    n_columns = 2 if len(panels) == 4 else min(3, len(panels))
    n_rows = -(-len(panels) // n_columns)
    figure = new_figure(4.6 * n_columns, 3.2 * n_rows)
    axes = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True).flatten()
    for axis, names in zip(axes, panels, strict=False):
        for name in names:
            estimate = estimates[name]
            axis.plot(curves.frames, estimate.value, label=name, linewidth=1.6)
            axis.fill_between(curves.frames, estimate.low, estimate.high, alpha=0.2)
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, fontsize=8, loc="lower right")
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    figure.supxlabel("frames", fontsize=10)
    figure.supylabel("greedy return, mean over agents", fontsize=10)
    title = f"{curves.config['algorithm']} on {curves.config['task']['name']}, {len(curves.seeds)} seeds"
    figure.suptitle(f"{title}: interquartile mean and {CONFIDENCE:.0%} bootstrap interval", fontsize=11)
    figure.savefig(path, dpi=110)


def scores(curves: Curves, measure: str) -> dict[str, np.ndarray]:
    """One number per run, ``[seeds]``: its `final` evaluation, or the `mean` of all its evaluations."""
    return {name: values[:, -1] if measure == "final" else values.mean(1) for name, values in curves.returns.items()}


def _families(layouts: list[str]) -> list[list[str]]:
    """The layouts of each panel of the plot: the orderings of one layout, or the single layouts and ``central``."""
    families: dict[str, list[str]] = {}
    for name in layouts:
        base = next((other for other in layouts if other != name and name.startswith(f"{other}_")), name)
        families.setdefault(base, []).append(name)
    several = [names for names in families.values() if len(names) > 1]
    single = [names[0] for names in families.values() if len(names) == 1]
    reference = ["central"] if single and "central" in layouts and "central" not in single else []
    return [*several, *([[*reference, *single]] if single else [])]


def _introduction(curves: Curves, made: str) -> str:
    config, task = curves.config, curves.config["task"]
    arguments = [f"{name}={value}".lower() for name, value in task.get("params", {}).items()]
    arguments += [f"max_steps={task['max_steps']}", f"n_envs={task['n_envs']}"]
    if "continuous_actions" in task:
        arguments.append(f"continuous_actions={task['continuous_actions']}".lower())
    return (
        f"{config['algorithm'].upper()} on `{task['name']}` ({', '.join(arguments)}), {config['total_frames']:,} "
        f"frames per run, {len(curves.seeds)} seeds per layout, {config['evaluation']['episodes']} greedy episodes per "
        "evaluation on seeds that training never used. The figures are interquartile means over seeds, in brackets "
        f"their {CONFIDENCE:.0%} bootstrap intervals ({RESAMPLES:,} resamples, `rliable`); a return is the mean over "
        f"agents. `layout=NAME` chooses a layout; the file `recipes/conf/layout/NAME.yaml` says what it is. {made}"
    )


def _table(curves: Curves) -> list[str]:
    final, mean = (
        interquartile_means({name: values[:, None] for name, values in scores(curves, measure).items()})
        for measure in MEASURES
    )
    lines = ["| layout | final return | mean of a run's evaluations | final return of each seed |", "|---|---|---|---|"]
    for name in sorted(curves.returns, key=lambda name: -final[name].value):
        each = ", ".join(f"{value:.3f}" for value in curves.returns[name][:, -1])
        lines.append(f"| `{name}` | {final[name].text()} | {mean[name].text()} | {each} |")
    return lines


def _claims(curves: Curves) -> list[str]:
    said = claims(list(curves.returns))
    if not said:
        return []
    lines = ["## Claims, and what these runs show", ""]
    if len(curves.seeds) < 2:
        return [*lines, "One seed decides nothing."]
    pairs = distinct(pair for claim in said for pair in claim.pairs)
    n_comparisons = len(pairs) * len(MEASURES)
    lines += [
        f"A difference is one of means over seeds. Its interval is Welch's, with Bonferroni's correction for all "
        f"{n_comparisons} comparisons of this page. A difference is beyond noise if its interval excludes 0.",
    ]
    for measure, meaning in MEASURES.items():
        found = differences(scores(curves, measure), pairs, n_comparisons=n_comparisons)
        lines += ["", f"By {meaning}:", ""]
        lines += [f"- *{claim.text}.* {claim.verdict(found)}" for claim in said]
        lines += ["", "| difference | | interval |", "|---|---|---|"]
        shown = {pair: found[pair] for pair in pairs}
        lines += [
            f"| `{first}` less `{second}` | {e.value:+.3f} | {e.low:+.3f} to {e.high:+.3f} |"
            for (first, second), e in shown.items()
        ]
    return lines


def _command(curves: Curves) -> list[str]:
    config: JsonObject = curves.config
    seeds = ",".join(str(seed) for seed in curves.seeds)
    options = [f"layout={','.join(curves.returns)}", f"seed={seeds}", *curves.changed]
    return [
        "```text",
        f"ctde-{config['algorithm']} study={NAME} {' '.join(options)}",
        f"ctde critic-layouts runs=runs/studies/{NAME}/{config['algorithm']} output=docs/studies",
        "```",
    ]
