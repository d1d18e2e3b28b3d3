"""Values that hydra takes as they are, whatever characters they hold."""

from __future__ import annotations

import re

# Options whose values are paths or addresses; those of runs are in ``short_forms``.
PATHS = ("replay.directory", "logger.tracking_uri", "task.scenario", "task.env")
# In these options of hydra's own an interpolation such as ${seed} keeps its meaning.
PATTERNS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")


def quoted(value: str, *, interpolated: bool = False) -> str:
    """``value`` quoted for an override, so that hydra and OmegaConf take every character of it as text.

    Args:
        value: any text.
        interpolated: whether ``${...}`` is still looked up.

    >>> quoted("runs/it's (1), a=b")
    "'runs/it\\\\'s (1), a=b'"
    """
    if not interpolated:
        value = re.sub(r"(\\*)\$\{", lambda match: f"{match[1] * 2}\\${{", value)
    value = re.sub(r"(\\*)'", lambda match: f"{match[1] * 2}\\'", value)
    return "'" + re.sub(r"\\+$", lambda match: match[0] * 2, value) + "'"


def with_quoted_path(argument: str, others: tuple[str, ...] = ()) -> str:
    """An argument of the command line, its value quoted where it is a path; one in quotes is left as it is.

    Args:
        argument: of any option.
        others: more options that are paths.

    >>> with_quoted_path("replay.directory=/scratch/a=b")
    "replay.directory='/scratch/a=b'"
    >>> with_quoted_path("gamma=0.9")
    'gamma=0.9'
    """
    name, _, value = argument.partition("=")
    is_pattern = name in PATTERNS
    if not (is_pattern or name in (*PATHS, *others)) or value in ("", "null") or re.fullmatch(r"(['\"]).*\1", value):
        return argument
    return f"{name}={quoted(value, interpolated=is_pattern)}"
