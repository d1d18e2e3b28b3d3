"""A page of headings, paragraphs, tables, pictures and commands, as Markdown and as one HTML file."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

STYLE = """
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.2rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; display: block; overflow-x: auto; font-size: 14px; margin: .8rem 0; }
th, td { border-bottom: 1px solid #ddd; padding: .3rem .7rem; text-align: left; vertical-align: top; }
th { background: #f5f5f5; } img { max-width: 100%; } figcaption { color: #555; font-size: 14px; }
figure { margin: 1rem 0; } code, pre { font: 14px ui-monospace, monospace; background: #f5f5f5; }
code { padding: .1rem .25rem; } pre { padding: .7rem; overflow-x: auto; }
"""


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the page's title."""

    text: str
    level: int = 2

    def markdown(self) -> str:
        return f"{'#' * self.level} {self.text}"

    def html(self, folder: Path) -> str:
        return f"<h{self.level}>{_inline(self.text)}</h{self.level}>"


@dataclass(frozen=True)
class Paragraph:
    """Text; `code` stands between backticks."""

    text: str

    def markdown(self) -> str:
        return self.text

    def html(self, folder: Path) -> str:
        return f"<p>{_inline(self.text)}</p>"


@dataclass(frozen=True)
class Bullets:
    """A list."""

    items: Sequence[str]

    def markdown(self) -> str:
        return "\n".join(f"- {item}" for item in self.items)

    def html(self, folder: Path) -> str:
        return "<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in self.items) + "</ul>"


@dataclass(frozen=True)
class Table:
    """A table."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        lines = [self.head, ["---"] * len(self.head), *self.rows]
        return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)

    def html(self, folder: Path) -> str:
        head = "".join(f"<th>{_inline(cell)}</th>" for cell in self.head)
        rows = ["".join(f"<td>{_inline(cell)}</td>" for cell in row) for row in self.rows]
        return f"<table><tr>{head}</tr>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"


@dataclass(frozen=True)
class Picture:
    """A PNG file beside the Markdown page, inside the HTML one."""

    path: str
    caption: str

    def markdown(self) -> str:
        return f"![{self.caption}]({self.path})\n\n*{self.caption}*"

    def html(self, folder: Path) -> str:
        data = base64.b64encode((folder / self.path).read_bytes()).decode()
        caption = _inline(self.caption)
        image = f'<img alt="{caption}" src="data:image/png;base64,{data}">'
        return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


@dataclass(frozen=True)
class Code:
    """Lines for a shell."""

    text: str

    def markdown(self) -> str:
        return f"```text\n{self.text}\n```"

    def html(self, folder: Path) -> str:
        return f"<pre>{html.escape(self.text)}</pre>"


Block = Heading | Paragraph | Bullets | Table | Picture | Code


def write_document(blocks: Sequence[Block], folder: Path, name: str) -> list[Path]:
    """Write ``NAME.html``, which needs no other file, and ``NAME.md``, whose pictures stand beside it."""
    title = next((block.text for block in blocks if isinstance(block, Heading)), name)
    body = "\n".join(block.html(folder) for block in blocks)
    page = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )
    paths = [folder / f"{name}.html", folder / f"{name}.md"]
    paths[0].write_text(page)
    paths[1].write_text("\n\n".join(block.markdown() for block in blocks) + "\n")
    return paths


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=True))
