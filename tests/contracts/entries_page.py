"""Writes ``docs/entries.md`` from the tables of the losses: ``python -m tests.contracts.entries_page``."""

from __future__ import annotations

from pathlib import Path

from ctde_kit.entry_tables import Entry
from tests.contracts.entry_cases import CASES

PAGE = Path(__file__).parents[2] / "docs" / "entries.md"
GROUPS = ("wolves", "sheep")
HEAD = """# What losses read

Each loss and estimator checks a batch once, before anything is computed, against its table of entries
(`loss.entries`): a missing entry, another dtype, another shape or an index out of range is a `UserError` of one line
that names the key, what was expected and what was found. Inside `torch.compile` nothing is checked; indices are looked
at on a CPU only, because on another device that would wait for the device.

`*B` is the batch: `[B]`, `[B, T]`, or more. `float` is the dtype of the loss's parameters. `GROUP` is the name of a
group of agents. What networks read (observations, states, hidden states) follows from the modules that the loss was
given, so some rows are there with some parts only. These tables are written from the code, and a test holds them.
"""
WORDS = {(True,): "yes", (False,): "may be missing", (False, True): "with some parts"}


def table(name: str) -> list[tuple[str, str, str, str]]:
    """The rows of one class: key, shape, dtype, and whether the entry must be there, over all cases of it."""
    readers = [reader for case in CASES.values() if type(reader := case.build()).__name__ == name]
    required: dict[tuple[str, str, str], list[bool]] = {}
    for reader in readers:
        entries = {_row(entry): entry for entry in reader.entries}
        for row, entry in entries.items():
            required.setdefault(row, []).append(not entry.optional)
    rows = []
    for row, always in required.items():
        everywhere = len(always) == len(readers)
        must = {*always} if everywhere or not any(always) else {True, False}
        rows.append((*row, WORDS[tuple(sorted(must))]))
    return rows


def _row(entry: Entry) -> tuple[str, str, str]:
    path = (entry.key,) if isinstance(entry.key, str) else entry.key
    names = [_without_name(part) for part in path]
    return repr(names[0] if len(names) == 1 else tuple(names)), entry.axes, entry.dtype


def _without_name(part: str) -> str:
    """A part of a key with ``GROUP`` for the name of a group: ``wolves``, or ``wolves_critic_hidden``."""
    first, *rest = part.split("_")
    return "_".join(["GROUP" if first in GROUPS else first, *rest])


def page() -> str:
    """The whole page."""
    names = dict.fromkeys(type(case.build()).__name__ for case in CASES.values())
    parts = [HEAD]
    for name in names:
        lines = [f"| `{key}` | `{axes}` | {dtype} | {must} |" for key, axes, dtype, must in table(name)]
        parts.append("\n".join([f"## {name}\n", "| key | shape | dtype | required |", "|---|---|---|---|", *lines, ""]))
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page())
