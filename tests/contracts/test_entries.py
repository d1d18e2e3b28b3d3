"""Batches with one wrong entry: each loss refuses them in one line that names the key, or learns the same."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tensordict import NonTensorData, TensorDict, TensorDictBase
from torch import Tensor

from ctde_kit.entry_tables import Entry
from ctde_kit.errors import UserError
from ctde_kit.objectives import (
    AdvantageEstimator,
    COMAActorLoss,
    COMACriticLoss,
    COMATargets,
    MADDPGLoss,
    MAPPOLoss,
    MASACLoss,
    QMixLoss,
    TeamReward,
)
from tests.contracts.entries_page import PAGE, page, table
from tests.contracts.entry_cases import CASES, batch_of, run

FLOATS = (torch.float64, torch.float32, torch.float16)
DTYPES = (*FLOATS, torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64)
WORDS = ("expected", "found", "missing")


def mutations(entry: Entry, value: Tensor, batch: tuple[int, ...]) -> Iterator[tuple[str, Any]]:
    """Wrong values for one entry, by what is wrong with them."""
    yield "none", NonTensorData(None, batch_size=batch)
    yield "a string", NonTensorData("0", batch_size=batch)
    yield "a tensordict", TensorDict({"x": value}, batch)
    for dtype in DTYPES:
        if dtype != value.dtype:
            yield str(dtype), value.to(dtype)
    yield "one axis more", value.unsqueeze(-1)
    yield "two axes more", value[..., None, None]
    yield "an axis of two more", torch.stack([value, value], -1)
    first = len(batch)
    yield "one axis more behind the batch", value.unsqueeze(first)
    for axis in range(first, value.ndim):
        size, name = value.shape[axis], entry.named_sizes[axis - first][0]
        yield f"without {name}", value.select(axis, 0)
        yield f"one {name} more", torch.cat([value, value.narrow(axis, 0, 1)], axis)
        if size > 1:
            yield f"one {name} less", value.narrow(axis, 0, size - 1)
            yield f"one {name} for all", value.narrow(axis, 0, 1)
        else:
            yield f"no {name}", value.narrow(axis, 0, 0)
    if value.ndim > first + 1:
        yield "agents and features swapped", value.transpose(-1, -2)
    if entry.n_values:
        yield "negative index", torch.full_like(value, -1)
        yield "index too high", torch.full_like(value, entry.n_values[0])
    if entry.dtype == "one-hot":
        yield "no choice", torch.zeros_like(value)
        yield "all choices", torch.ones_like(value)


def is_refused(reader: Any, entry: Entry, wrong: str, value: Any, data: TensorDictBase, expected: Any) -> bool:
    """Whether the batch was refused."""
    changed = data.copy()
    changed.set(entry.key, value)
    try:
        found = run(reader, changed)
    except UserError as error:
        message = str(error)
        assert repr(entry.key) in message, f"{entry.key} {wrong}: names another entry: {message}"
        assert "\n" not in message
        assert any(word in message for word in WORDS), message
        return True
    except Exception as error:
        pytest.fail(f"{entry.key} {wrong}: {type(error).__name__}: {error}")
    if wrong == "none":
        assert entry.optional
    else:
        for name, result in expected.items():
            what = f"{entry.key} {wrong}: {name}"
            torch.testing.assert_close(found[name], result, rtol=0, atol=1e-6, check_dtype=False, msg=what)
    return False


@pytest.mark.parametrize("name", CASES)
def test_one_wrong_entry_is_refused_by_its_name_or_changes_nothing(name: str) -> None:
    case = CASES[name]
    reader = case.build()
    data = batch_of(reader.entries, case.batch)
    expected = run(reader, data.copy())
    assert expected
    assert all(value.isfinite().all() for value in expected.values()), expected
    accepted = []
    for entry in reader.entries:
        for wrong, value in mutations(entry, data.get(entry.key), case.batch):
            if not is_refused(reader, entry, wrong, value, data, expected):
                accepted.append((entry.dtype, entry.optional, wrong))
    for dtype, optional, wrong in accepted:
        assert dtype in ("one-hot", "any float") or (optional and wrong == "none"), (dtype, optional, wrong)


@pytest.mark.parametrize("name", CASES)
def test_a_missing_entry_is_named_unless_it_may_be_missing(name: str) -> None:
    case = CASES[name]
    reader = case.build()
    entries = reader.entries
    data = batch_of(entries, case.batch)
    for entry in entries:
        if entry.optional:
            run(reader, data.exclude(entry.key))
        else:
            with pytest.raises(UserError, match="is missing: expected") as caught:
                run(reader, data.exclude(entry.key))
            assert repr(entry.key) in str(caught.value)


@pytest.mark.parametrize("name", ["MAPPO with dead agents", "IQL", "VDN without masks", "MADDPG categorical"])
def test_actions_of_padding_may_be_anything_wherever_the_mask_of_padding_stands(name: str) -> None:
    case = CASES[name]
    reader = case.build()
    reader.set_keys(padding_mask="valid")
    data = batch_of(reader.entries, case.batch)
    data["valid"][0] = False
    expected = run(reader, data.copy())
    data["sheep", "action"][~data["valid"]] = 99
    for key, value in run(reader, data.copy()).items():
        torch.testing.assert_close(value, expected[key], rtol=0, atol=1e-6)
    with pytest.raises(UserError, match="expected indices from 0 to 5, found 99"):
        run(reader, data.set(("collector", "mask"), data["valid"]).exclude("valid"))


def test_the_page_of_entries_is_that_of_the_tables() -> None:
    assert PAGE.read_text() == page(), "write it anew: python -m tests.contracts.entries_page"


# What modules say that they read; the page has it, docstrings leave it to the modules.
OF_MODULES = ("observation", "state", "last_action", "actor_hidden", "GROUP_critic_hidden", "order")


READERS = [
    AdvantageEstimator,
    COMAActorLoss,
    COMACriticLoss,
    COMATargets,
    MADDPGLoss,
    MAPPOLoss,
    MASACLoss,
    QMixLoss,
    TeamReward,
]


@pytest.mark.parametrize("reader", READERS)
def test_docstrings_name_every_entry_that_a_loss_itself_reads(reader: type) -> None:
    documentation = inspect.getdoc(reader) or ""
    rows = table(reader.__name__)
    assert rows
    for key, *_ in rows:
        path = ast.literal_eval(key)
        name = path if isinstance(path, str) else path[-1]
        if name not in OF_MODULES:
            assert re.search(rf"\W{name}\W", documentation), f"{reader.__name__} reads {key}"
