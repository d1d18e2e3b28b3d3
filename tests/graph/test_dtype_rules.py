"""Inductor's rules on dtypes are set up once, and leave its code as it is."""

import importlib
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from ctde_kit.graph import compile_graph, trace, tracing
from ctde_kit.graph.dtype_rules import lasting_dtype_rules

common: Any = importlib.import_module("torch._inductor.codegen.common")


@pytest.fixture
def set_up(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Has an entry for each time that the rules are set up."""
    rules, found = common.DtypePropagationOpsHandler, list[int]()
    usual = rules.__init__

    def counted(self: Any) -> None:
        found.append(len(found))
        usual(self)

    monkeypatch.setattr(rules, "__init__", counted)
    return found


def code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The C++ of a graph with several loops and dtypes."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
    x = torch.linspace(-2, 3, 60).reshape(20, 3)
    compile_graph(
        trace(lambda inputs: [inputs[0].exp().sum(0), (inputs[0] > 1) & (inputs[0].to(torch.int64) < 2)], [x])
    )
    return sorted(re.sub(r"\w{30,}", "", file.read_text()) for file in folder.rglob("*.main.cpp"))


def test_once_per_graph_and_the_same_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_up: list[int]) -> None:
    kept = code(tmp_path / "kept", monkeypatch)
    assert len(set_up) == 1
    monkeypatch.setattr(tracing, "lasting_dtype_rules", nullcontext)
    assert code(tmp_path / "usual", monkeypatch) == kept != []
    assert len(set_up) > 5


def test_inductor_is_left_as_it_was() -> None:
    rules = common.DtypePropagationOpsHandler
    with lasting_dtype_rules():
        assert common.DtypePropagationOpsHandler is not rules
    assert common.DtypePropagationOpsHandler is rules
