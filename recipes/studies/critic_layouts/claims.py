"""Claims that papers make about critics' layouts, and what the runs show about each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ctde_kit.training.reporting import Estimate

CENTRAL, AVERAGED = "central", "averaged"
ORDERINGS = ("own_first", "random")
Pair = tuple[str, str]


@dataclass(frozen=True)
class Claim:
    """A statement about pairs of layouts.

    Args:
        text: the claim in words.
        expected: how the first of each pair does against the second: `above`, `below`, or `alike`.
        pairs: the pairs of layouts that the claim is about.
    """

    text: str
    expected: str
    pairs: tuple[Pair, ...]

    def verdict(self, found: Mapping[Pair, Estimate]) -> str:
        """One sentence: confirmed, contradicted or neither, and which differences are beyond noise."""
        beyond = {pair: found[pair] for pair in self.pairs if found[pair].beyond_noise}
        named = [f"{first} {'above' if e.value > 0 else 'below'} {second}" for (first, second), e in beyond.items()]
        counted = f"{len(beyond)} of {len(self.pairs)} differences are beyond noise"
        counted += f": {', '.join(named)}" if named else ""
        if self.expected == "alike":
            return f"{'Contradicted' if beyond else 'Not contradicted'}; {counted}."
        agreeing = [e for e in beyond.values() if (e.value > 0) == (self.expected == "above")]
        if len(agreeing) < len(beyond):
            return f"Contradicted; {counted}."
        if len(agreeing) == len(self.pairs):
            return f"Confirmed; {counted}."
        return f"Not confirmed; {counted}."


def claims(layouts: list[str]) -> list[Claim]:
    """The claims that runs of these ``layouts`` can test; a layout is not compared with its own variants."""
    with_order = [(f"{name}_{order}", name) for name in layouts for order in ORDERINGS]
    ordered = tuple(pair for pair in with_order if pair[0] in layouts)
    said = [
        ("One central critic does best", "above", _against(CENTRAL, layouts)),
        ("Averaging the critics' parameters does worst", "below", _against(AVERAGED, layouts)),
        ("The ordering makes no significant difference", "alike", ordered),
    ]
    return [Claim(text, expected, pairs) for text, expected, pairs in said if pairs]


def distinct(pairs: Iterable[Pair]) -> list[Pair]:
    """Every two layouts once, in the order in which some claim first names them."""
    found: dict[frozenset[str], Pair] = {}
    for pair in pairs:
        found.setdefault(frozenset(pair), pair)
    return list(found.values())


def _against(name: str, layouts: list[str]) -> tuple[Pair, ...]:
    return tuple((name, other) for other in layouts if not other.startswith(name)) if name in layouts else ()
