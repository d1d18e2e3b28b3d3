"""What programs measure for docs/scale_out.md: kept as a file, and shown in a table of the page."""

from __future__ import annotations

import datetime
import json
from typing import Any

from tests.programs.learning.measure import ROOT, machine
from tests.programs.marked import write_between

PAGE = ROOT / "docs" / "scale_out.md"


def publish(name: str, measured: dict[str, Any], table: str) -> None:
    """Write figures to docs/results/NAME.json, and a table of them between the page's marks.

    Both say on what machine they were measured, and on what day.

    Args:
        name: of the file; the marks have it with spaces.
        measured: the figures.
        table: the same for readers.
    """
    told = {**measured, "machine": machine(), "date": datetime.date.today().isoformat()}
    (ROOT / "docs" / "results" / f"{name}.json").write_text(json.dumps(told, indent=1) + "\n")
    write_between(PAGE, name.replace("_", " "), f"{table}\n\n{told['machine']}; {told['date']}.")
