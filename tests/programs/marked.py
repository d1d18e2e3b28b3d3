"""The parts of the documentation that are written by programs, between marks."""

from __future__ import annotations

from pathlib import Path


def write_between(page: Path, name: str, text: str) -> None:
    """Replace what stands in ``page`` between ``<!-- name -->`` and ``<!-- end of name -->``."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, rest = page.read_text().split(begin)
    body = text.strip("\n")
    page.write_text(f"{before}{begin}\n" + (f"{body}\n" if body else "") + f"{end}{rest.split(end)[1]}")
