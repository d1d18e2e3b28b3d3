"""Which parts fit which: the tables of docs/parts.md.

Run ``python -m tests.programs.pairs``; ``tests/contracts/test_pairs.py`` checks that the page is current.
"""

from __future__ import annotations

import re
from pathlib import Path

from tests.contracts.pairs import FITS, LOSSES, names, outcome, pairs

PAGE = Path(__file__).parents[2] / "docs" / "parts.md"
BEGIN, END = "<!-- begin of the tables -->", "<!-- end of the tables -->"
TITLES = {**LOSSES, "qmix": "QMIX and its relatives: actors, mixers"}
# By algorithm, row of its table, actor network: ``FITS``, or the line that refuses.
Outcomes = dict[tuple[str, str, str], str]


def tables(outcomes: Outcomes) -> str:
    """The outcomes as Markdown, refusals as notes below."""
    actors = names("network")
    lines, notes = [], []
    for algorithm, title in TITLES.items():
        lines += ["", f"## {title}", "", "| | " + " | ".join(f"`{actor}`" for actor in actors) + " |"]
        lines.append("|---" * (len(actors) + 1) + "|")
        for row in dict.fromkeys(row for other, row, _ in outcomes if other == algorithm):
            cells = []
            for actor in actors:
                outcome = outcomes[algorithm, row, actor]
                if outcome != FITS and outcome not in notes:
                    notes.append(outcome)
                cells.append("✓" if outcome == FITS else f"({notes.index(outcome) + 1})")
            lines.append(f"| {row} | " + " | ".join(cells) + " |")
    lines += ["", "Refused, in one line:", "", *[f"{i}. {note}" for i, note in enumerate(notes, 1)], ""]
    return "\n".join(lines)


def committed() -> str:
    """The tables of the page as it is."""
    return PAGE.read_text().split(BEGIN)[1].split(END)[0]


def committed_outcomes() -> Outcomes:
    """What the page says: ``tables``, backwards."""
    page = committed()
    notes = dict(re.findall(r"^(\d+)\. (.*)$", page, re.MULTILINE))
    outcomes: Outcomes = {}
    for algorithm, title in TITLES.items():
        section = page.split(f"## {title}\n")[1].split("\n## ")[0]
        header, _, *rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
        for row, *cells in rows:
            for actor, cell in zip(header, cells, strict=True):
                outcomes[algorithm, row, actor.strip("`")] = FITS if cell == "✓" else notes[cell.strip("()")]
    return outcomes


def main() -> None:
    """Write the tables into the page."""
    outcomes = {(algorithm, row, actor): outcome(algorithm, actor, *o) for algorithm, row, actor, o in pairs()}
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(before + BEGIN + "\n" + tables(outcomes) + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
