"""What counts as command-line syntax in an error of the library, and the texts of all its errors."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

LIBRARY = Path(__file__).parents[1] / "ctde_kit"
# Values that Python writes without quotes, too.
_PLAIN = r"True\b|False\b|None\b|inf\b|nan\b"
COMMAND_LINE_SYNTAX = re.compile(
    rf"""
      \b[a-z_]+(\.[a-z_]+)+=                    # replay.capacity=10
    | \w@\w                                     # network@actor
    | \b[a-z_]+=(?!{_PLAIN})[A-Za-z]\w*(?![\w(.])   # critic=centralized, but not scale=LearnedScale(...)
    | \bctde-(?!kit\b)[a-z]+                    # ctde-mappo, but not the package ctde-kit
    | \bhydra\b | command.line
    """,
    re.VERBOSE,
)


def texts() -> Iterator[tuple[str, str]]:
    """Place and text of every error that the library raises, and of the advice that it gives to one.

    A value that is filled in is ``'x'`` where its ``repr`` is, else ``0``.
    """
    for path in sorted(LIBRARY.rglob("*.py")):
        if "recipes" in path.relative_to(LIBRARY).parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            for argument in _messages(node):
                text = _text(argument)
                if text:
                    yield f"{path.relative_to(LIBRARY)}:{argument.lineno}", text


def _messages(node: ast.AST) -> list[ast.expr]:
    """What a call that makes an error, or that checks something and takes advice for its error, is given."""
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        return node.exc.args[:1]
    if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("required_entry", "UserError"):
        return [*node.args, *[keyword.value for keyword in node.keywords]]
    return []


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_text, node.values))
    if isinstance(node, ast.FormattedValue):
        return "'x'" if node.conversion == ord("r") else "0"
    if isinstance(node, (ast.BoolOp, ast.IfExp, ast.BinOp)):
        return " ".join(filter(None, map(_text, [child for child in ast.walk(node) if _is_text(child)])))
    return ""


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, (ast.Constant, ast.JoinedStr))
