"""What ``ctde describe`` says of tasks of every family.

Run ``python -m tests.programs.scenarios.described_tasks``. Writes the block in docs/environments.md.
"""

from __future__ import annotations

from pathlib import Path

from ctde_kit.recipes.commands.describe import described
from ctde_kit.recipes.commands.task_arguments import task_of
from tests.programs.marked import write_between

PAGE = Path(__file__).parents[3] / "docs" / "environments.md"
TASKS: tuple[tuple[str, ...], ...] = (
    ("task=vmas/navigation",),
    ("task=vmas/simple_tag",),
    ("task=vmas/simple_world_comm",),
    ("task=vmas/football", "task.params.ai_red_agents=false", "task.groups_compete=true"),
    ("task=pettingzoo/simple_spread",),
    ("task=pettingzoo/simple_tag",),
    ("task=pettingzoo/multiwalker", "task.n_workers=1"),
    ("task=lbf/foraging_8x8_2p_2f_coop",),
    ("task=memory/recall",),
    ("task=communication/cue_groups",),
    ("task=matrix/two_step",),
    ("task=torchrl/tests.programs.scenarios.own_env:make_env", "task.max_steps=50"),
)


def main() -> None:
    """Describe each task, and write all of it down."""
    lines = ["```text"]
    for arguments in TASKS:
        lines += [f"$ ctde describe {' '.join(arguments)}", *described(task_of("ctde describe", [*arguments])), ""]
        print("\n".join(lines[-8:]), flush=True)
    write_between(PAGE, "described tasks", "\n".join([*lines[:-1], "```"]))


if __name__ == "__main__":
    main()
