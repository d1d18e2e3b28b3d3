"""State of modules: found where a call changes it, and put back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ctde_kit.graph import TraceError
from ctde_kit.graph.module_state import check_module_state, restoring_modules


class Part(nn.Module):
    """State of every kind, one of which a call changes."""

    def __init__(self, changes: str = "") -> None:
        super().__init__()
        self.changes, self.number, self.missing, self.name = changes, 1, float("nan"), "one"
        self.register_buffer("buffer", torch.zeros(3))

    def forward(self) -> None:
        if self.changes == "number":
            self.number += 1
        elif self.changes == "name":
            self.name += "!"
        elif self.changes == "buffer":
            self.buffer[1] += 1
        elif self.changes == "new":
            self.new = 5


@pytest.mark.parametrize("changes", ["number", "name", "buffer", "new"])
def test_what_a_call_changes_is_named_and_put_back(changes: str) -> None:
    part = Part(changes)
    with pytest.raises(TraceError, match=f"^Part keeps changing {changes}$"):
        check_module_state(nn.Sequential(Part(), part).modules(), part)
    assert (part.number, part.name, part.buffer.tolist()) == (1, "one", [0, 0, 0])
    assert not hasattr(part, "new")
    with restoring_modules([part]):
        part()
    assert (part.number, part.name, part.buffer.tolist()) == (1, "one", [0, 0, 0])


def test_what_stays_is_no_state() -> None:
    part = Part()
    check_module_state([part], part)
