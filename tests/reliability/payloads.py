"""Files that would run code, through every way by which a run directory is read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from ctde_kit.errors import UserError
from ctde_kit.recipes import load
from ctde_kit.training import latest_checkpoint, read_checkpoint
from tests.reliability.cases import COMMON, ON_POLICY, Ended, run_command
from tests.reliability.faults import malicious_checkpoint, seal

TAG = ["task=vmas/simple_tag", *COMMON, *ON_POLICY, "total_frames=60", "compile=off"]
WAYS = ("resume", "load", "initial", "opponents", "cross-play")
KINDS = ("_target_ in config.yaml", "a tag in config.yaml", "_target_ in actors.yaml", "a pickle as checkpoint")


def honest_run(cwd: Path) -> Path:
    """A run that others are made from."""
    ended = run_command(cwd, "mappo", [*TAG, "hydra.run.dir=honest"])
    assert ended.code == 0, ended.stderr
    return cwd / "honest"


def malicious_run(honest: Path, kind: str, mark: Path) -> Path:
    """A copy of a run with a payload that makes the directory ``mark``, sealed as if it were a run's own."""
    run = honest.parent / "malicious"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(honest, run)
    target = {"_target_": "os.mkdir", "_args_": [str(mark)]}
    config, actors = (yaml.safe_load((run / name).read_text()) for name in ("config.yaml", "actors.yaml"))
    if kind == "_target_ in config.yaml":
        config["actor"] = config["task"] = config["lr"] = target
        (run / "config.yaml").write_bytes(seal(yaml.safe_dump(config).encode()))
    elif kind == "a tag in config.yaml":
        text = yaml.safe_dump(config) + f"lr: !!python/object/apply:os.mkdir ['{mark}']\n"
        (run / "config.yaml").write_bytes(seal(text.encode()))
    elif kind == "_target_ in actors.yaml":
        actors = dict.fromkeys(actors, target)
        (run / "actors.yaml").write_bytes(seal(yaml.safe_dump(actors).encode()))
    else:
        path = latest_checkpoint(run / "checkpoints")
        malicious_checkpoint(path, read_checkpoint(path, algorithm="mappo"), mark)
    return run


def attack(cwd: Path, way: str, run: Path) -> Ended:
    """Read ``run`` in a way; how that ended."""
    sides = [f"adversary={run}", f"agent={run}", "episodes=2", "device=cpu", "hydra.run.dir=table"]
    commands: dict[str, Callable[[], Ended]] = {
        "resume": lambda: run_command(cwd, "mappo", [f"resume={run}", "total_frames=120"]),
        "load": lambda: _loaded(run),
        "initial": lambda: run_command(cwd, "mappo", [*TAG, f"initial.agent={run}", "hydra.run.dir=next"]),
        "opponents": lambda: run_command(cwd, "mappo", [*TAG, f"opponents.agent={run}", "hydra.run.dir=next"]),
        "cross-play": lambda: run_command(cwd, "cross-play", sides),
    }
    ended = commands[way]()
    for name in ("next", "table"):
        shutil.rmtree(cwd / name, ignore_errors=True)
    return ended


def _loaded(run: Path) -> Ended:
    try:
        load(run)
    except UserError as error:
        return Ended(2, f"{error}\n", 0.0)
    return Ended(0, "", 0.0)


def attack_all(cwd: Path) -> dict[str, dict[str, Any]]:
    """By kind of payload and way in, whether it was refused in one line; nothing may ever have run."""
    honest, mark = honest_run(cwd), cwd / "MARK"
    found: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        found[kind] = {}
        for way in WAYS:
            ended = attack(cwd, way, malicious_run(honest, kind, mark))
            one_line = ended.code == 2 and len(ended.stderr.splitlines()) == 1
            # How actors of other runs are built is nothing that these two read from the file of this run.
            never_read = kind == "_target_ in actors.yaml" and way in ("resume", "load", "initial") and ended.code == 0
            found[kind][way] = "refused" if one_line else "not read" if never_read else f"{ended.code}: {ended.stderr}"
            if mark.exists():
                found[kind][way] = "RAN"
                mark.rmdir()
    return found
