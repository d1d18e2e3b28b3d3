"""Names of a sweep's directories: the job's number, and what the sweep changes, such as ``3_lr_0.01_seed_1``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from omegaconf import OmegaConf

from ctde_kit.recipes.commands.arguments import has_several_values

# Hydra's list of the options that are left out of a directory's name.
FIXED = "hydra.job.config.override_dirname.exclude_keys"
# Longer values are cut; the job's number tells directories apart.
LONGEST_VALUE = 30
LONGEST_NAME = 120


def fixed_options(overrides: Sequence[str]) -> list[str]:
    """The override that says which options have one value in all jobs of a sweep; none where there is no such option.

    >>> fixed_options(["seed=0,1", "++task.params.n_agents=4"])
    ["hydra.job.config.override_dirname.exclude_keys=['task.params.n_agents']"]
    """
    fixed = [_name(override) for override in overrides if not has_several_values(override)]
    names = ",".join(f"'{name}'" for name in fixed if not name.startswith("hydra"))
    return [f"{FIXED}=[{names}]"] if names else []


def swept_name(overrides: Sequence[str], fixed: Sequence[str], seed: int) -> str:
    """What differs between the jobs of a sweep, as part of a directory's name; the seed where nothing does.

    Args:
        overrides: of one job.
        fixed: options that have one value in all jobs.
        seed: of the job.

    >>> swept_name(["task=vmas/balance", "lr=0.01", "seed=1"], ["task"], seed=1)
    'lr_0.01_seed_1'
    >>> swept_name(["network@actor=gru", "actor.hidden_size=8", "critic.hidden_size=4"], [], seed=0)
    'actor_gru_actor.hidden_size_8_critic.hidden_size_4'
    """
    swept = {_name(override): override.partition("=")[2] for override in overrides}
    swept = {name: value for name, value in swept.items() if name not in fixed} or {"seed": str(seed)}
    short = {name: _short(name) for name in swept}
    parts = [
        f"{short[name] if [*short.values()].count(short[name]) == 1 else _whole(name)}_{_plain(value)}"
        for name, value in swept.items()
    ]
    return "_".join(parts)[:LONGEST_NAME]


def _name(override: str) -> str:
    return override.partition("=")[0].lstrip("+")


def _whole(name: str) -> str:
    """An option's name without the folder that ``network@actor`` chooses from."""
    return name.rpartition("@")[2].removesuffix(".directory").replace("/", ".")


def _short(name: str) -> str:
    return _whole(name).rpartition(".")[2]


def _plain(value: str) -> str:
    """A value without what is special in a path; of a path its last part."""
    last = value.strip("'\"/").rpartition("/")[2]
    return re.sub(r"[^\w.+-]+", "-", last).strip("-.")[:LONGEST_VALUE] or "null"


# Here, because launchers name directories in processes that load no more than the job's function.
OmegaConf.register_new_resolver("swept", swept_name, replace=True)
