"""Checkpoints: resumed runs, damaged files, and the state of every part."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from ctde_kit.errors import UserError
from ctde_kit.recipes import MAPPOConfig, ValueCriticConfig
from ctde_kit.training import (
    Parts,
    checkpoint_paths,
    latest_checkpoint,
    load_parts,
    read_checkpoint,
    save_checkpoint,
)
from tests.recipes.resuming import advance
from tests.recipes.small import NORMALIZED, averaged, network, small_config
from tests.reliability.faults import flipped, full_disk, malicious_checkpoint, random_bits


def parameters(parts: Parts) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in parts.update.losses.state_dict().items()}


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, second[name]), name


CONFIGS = {
    "mlp": lambda: small_config("mlp"),
    "gru": lambda: small_config("gru", **NORMALIZED),
    "random order": lambda: small_config(critic=ValueCriticConfig(ordering="random", network=network("mlp"))),
    "averages": lambda: small_config(critic=averaged(5)),
    "unshared": lambda: small_config(actor=network("mlp", share_params=False), anneal_lr=True),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in ("mlp", "gru") else [pytest.mark.slow]) for name in CONFIGS]
)
def test_resumed_run_equals_the_run_that_never_stopped(name: str, tmp_path: Path) -> None:
    uninterrupted = advance(CONFIGS[name]().build(), 4)

    stopped = advance(CONFIGS[name]().build(), 2)
    path = tmp_path / "frames_120.pt"
    save_checkpoint(path, stopped, algorithm="mappo", frames=stopped.collector.frames)
    torch.manual_seed(99)
    random.seed(99)
    np.random.seed(99)
    resumed = CONFIGS[name]().build()
    advance(resumed, 1)
    assert load_parts(read_checkpoint(path, algorithm="mappo"), resumed) == 120
    advance(resumed, 2)

    assert resumed.collector.frames == uninterrupted.collector.frames == 240
    assert_same(parameters(uninterrupted), parameters(resumed))
    ours, theirs = uninterrupted.collector.state_dict(), resumed.collector.state_dict()
    assert_same(ours["next_root"], theirs["next_root"])


def test_taking_a_checkpoint_changes_nothing(tmp_path: Path) -> None:
    unsaved = advance(small_config("gru").build(), 3)
    saved = small_config("gru").build()
    for _ in range(3):
        advance(saved, 1)
        save_checkpoint(tmp_path / "c.pt", saved, algorithm="mappo", frames=saved.collector.frames)
    assert_same(parameters(unsaved), parameters(saved))


@pytest.mark.parametrize("part", ["collector", "prepare", "update", "policy"])
def test_every_part_is_restored(part: str) -> None:
    parts = advance(small_config("gru").build(), 2)
    stateful = getattr(parts, part)
    before = torch.utils._pytree.tree_map(
        lambda x: x.clone() if isinstance(x, torch.Tensor) else x, stateful.state_dict()
    )
    other = advance(small_config("gru", seed=3).build(), 1)
    target = getattr(other, part)
    target.load_state_dict(before)
    after = target.state_dict()
    flat = torch.utils._pytree.tree_leaves
    pairs = [(a, b) for a, b in zip(flat(before), flat(after), strict=True) if isinstance(a, torch.Tensor)]
    assert pairs
    for saved, restored in pairs:
        assert torch.equal(saved, restored)


def test_learning_rate_and_value_statistics_are_saved(tmp_path: Path) -> None:
    config = small_config(anneal_lr=True)
    parts = advance(config.build(), 2)
    save_checkpoint(tmp_path / "c.pt", parts, algorithm="mappo", frames=120)
    other = config.build()
    load_parts(read_checkpoint(tmp_path / "c.pt", algorithm="mappo"), other)
    assert other.update.optimizer.param_groups[0]["lr"] == parts.update.optimizer.param_groups[0]["lr"] < config.lr
    norm = other.update.losses["agents"].value_norm
    assert norm.weight > 0
    assert torch.equal(norm.mean_sum, parts.update.losses["agents"].value_norm.mean_sum)


def test_a_kill_while_writing_leaves_the_previous_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = small_config().build()
    path = tmp_path / "frames_0.pt"
    save_checkpoint(path, parts, algorithm="mappo", frames=0)
    whole = path.read_bytes()

    def dies_in_the_middle(content: object, file: object) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", dies_in_the_middle)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, parts, algorithm="mappo", frames=60)
    assert path.read_bytes() == whole
    assert latest_checkpoint(tmp_path) == path


def test_a_full_disk_is_one_line_and_leaves_the_previous_checkpoint(tmp_path: Path) -> None:
    parts = small_config().build()
    path = tmp_path / "frames_0.pt"
    save_checkpoint(path, parts, algorithm="mappo", frames=0)
    whole = path.read_bytes()
    with full_disk(room=5_000), pytest.raises(UserError, match=r"frames_60\.pt cannot be written") as caught:
        save_checkpoint(tmp_path / "frames_60.pt", parts, algorithm="mappo", frames=60)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == whole
    assert latest_checkpoint(tmp_path) == path


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
def test_damaged_checkpoint_is_named(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "frames_0.pt"
    save_checkpoint(path, small_config().build(), algorithm="mappo", frames=0)
    content = path.read_bytes()
    path.write_bytes({"truncated": content[: len(content) // 2], "garbage": b"x" * 500, "empty": b""}[damage])
    with pytest.raises(UserError, match="is damaged, truncated, or not a checkpoint"):
        read_checkpoint(path, algorithm="mappo")


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "frames_0.pt"
    save_checkpoint(path, small_config().build(), algorithm="mappo", frames=0)
    size = 8 * path.stat().st_size
    for bit in (*range(0, 800, 7), *range(size - 8 * 300, size), *random_bits(path, 100)):
        with flipped(path, bit), pytest.raises(UserError, match=r"frames_0\.pt is damaged"):
            read_checkpoint(path, algorithm="mappo")
    assert read_checkpoint(path, algorithm="mappo")["frames"] == 0


def test_a_pickle_that_runs_code_is_refused_whatever_its_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "frames_0.pt"
    save_checkpoint(path, small_config().build(), algorithm="mappo", frames=0)
    malicious_checkpoint(path, read_checkpoint(path, algorithm="mappo"), tmp_path / "MARK")
    # Torch's own switch, which would load anything where the call does not say.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(UserError, match=r"frames_0\.pt is not a checkpoint: it holds more than tensors") as caught:
        read_checkpoint(path, algorithm="mappo")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "MARK").exists()


def test_files_of_other_names_are_no_checkpoints(tmp_path: Path) -> None:
    names = ["frames_best.pt", "frames_600 (copy).pt", "frames_.pt", "frames_0060.pt", "frames_1_2.pt", "frames_-5.pt"]
    for name in (*names, "frames_60.pt", "frames_120.pt"):
        (tmp_path / name).touch()
    assert [path.name for path in checkpoint_paths(tmp_path)] == ["frames_60.pt", "frames_120.pt"]


def test_checkpoint_of_another_algorithm_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.pt", small_config().build(), algorithm="ippo", frames=0)
    with pytest.raises(UserError, match="algorithm 'ippo', expected 'mappo'"):
        read_checkpoint(tmp_path / "c.pt", algorithm="mappo")


def other_configs() -> list[MAPPOConfig]:
    wider = network("mlp")
    wider.num_cells = [9]
    return [small_config(actor=wider), small_config("gru")]


@pytest.mark.parametrize("index", [0, 1])
def test_checkpoint_of_other_networks_is_refused_in_one_line(index: int, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.pt", small_config().build(), algorithm="mappo", frames=0)
    content = read_checkpoint(tmp_path / "c.pt", algorithm="mappo")
    with pytest.raises(UserError, match="does not fit this run") as caught:
        load_parts(content, other_configs()[index].build())
    assert "\n" not in str(caught.value)


def test_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    first, second = (parameters(advance(small_config().build(), 2)) for _ in range(2))
    assert_same(first, second)
    third = parameters(advance(small_config(seed=1).build(), 2))
    assert any(not torch.equal(first[name], third[name]) for name in first if first[name].is_floating_point())
