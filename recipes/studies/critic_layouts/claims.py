"""What is said of critics' layouts, and what the runs say to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from ctde_kit.recipes.studies.critic_layouts.statistics import Estimate, differences

ORDERINGS = ("own_first", "random")


@dataclass(frozen=True)
class Claim:
    """A statement about pairs of layouts.

    Args:
        text: as it is said.
        expected: of the first of each pair against the second: `above`, `below`, or `alike`.
        pairs: that it speaks of.
    """

    text: str
    expected: str
    pairs: tuple[tuple[str, str], ...]

    def verdict(self, found: Mapping[tuple[str, str], Estimate]) -> str:
        """A plain sentence."""
        beyond = {pair: found[pair] for pair in self.pairs if found[pair].beyond_noise}
        names = ", ".join(
            f"{first} {'above' if e.value > 0 else 'below'} {second}" for (first, second), e in beyond.items()
        )
        counted = f"{len(beyond)} of {len(self.pairs)} differences are beyond noise" + (f": {names}" if names else "")
        if self.expected == "alike":
            return f"{'Contradicted' if beyond else 'Not contradicted'}; {counted}."
        agreeing = [e for e in beyond.values() if (e.value > 0) == (self.expected == "above")]
        if len(agreeing) < len(beyond):
            return f"Contradicted; {counted}."
        if len(agreeing) == len(self.pairs):
            return f"Confirmed; {counted}."
        return f"Not confirmed; {counted}."


def claims(layouts: list[str]) -> list[Claim]:
    """Those that the ``layouts`` at hand can answer."""
    ordered = [
        (name, name.removesuffix(f"_{order}")) for name in layouts for order in ORDERINGS if name.endswith(order)
    ]
    ordered = [pair for pair in ordered if pair[1] in layouts]
    rest = [name for name in layouts if name not in dict(ordered)]
    said = [
        ("One central critic does best", "above", _against("central", rest)),
        ("Averaging the critics' parameters does worst", "below", _against("averaged", rest)),
        ("The ordering makes no significant difference", "alike", tuple(ordered)),
    ]
    return [Claim(text, expected, pairs) for text, expected, pairs in said if pairs]


def answers(scores: dict[str, np.ndarray]) -> tuple[list[Claim], dict[tuple[str, str], Estimate]]:
    """The claims, and the difference of each of their pairs, corrected for how many there are."""
    said = claims(list(scores))
    pairs = list(dict.fromkeys(pair for claim in said for pair in claim.pairs))
    return said, differences(scores, pairs, n_comparisons=len(pairs)) if pairs else {}


def _against(name: str, others: list[str]) -> tuple[tuple[str, str], ...]:
    return tuple((name, other) for other in others if other != name) if name in others else ()
