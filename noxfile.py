"""Sessions: ``nox -s NAME``; ``nox`` alone runs the gates. ``.ci/run`` runs the same gates in an environment of its own
(``--no-venv --no-install``), so what a session needs is in the extras ``dev`` and ``docs``, too."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "imports", "docs", "tests"]
nox.options.reuse_existing_virtualenvs = True
ROOT = Path(__file__).parent


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: style and formatting."""
    session.install("ruff>=0.12")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Pyright, of an installed copy and the tests: only there does it see ``ctde_kit.recipes``."""
    session.install("-e", ".[dev]")
    python = session.run("python", "-c", "import sys; print(sys.executable)", silent=True, log=False).strip()
    copy = _installed_copy(session)
    shutil.copytree(ROOT / "tests", copy / "tests")
    with session.chdir(copy):
        session.run("pyright", "--pythonpath", python)


@nox.session
def imports(session: nox.Session) -> None:
    """Who may import whom, of an installed copy; nothing is imported for it."""
    session.install("import-linter>=2.1")
    with session.chdir(_installed_copy(session)):
        session.run("lint-imports", "--no-cache")


@nox.session
def tests(session: nox.Session) -> None:
    """The default test run."""
    session.install("-e", ".[test]")
    session.run("pytest", *session.posargs)


@nox.session
def slow(session: nox.Session) -> None:
    """The tests that the default run leaves out: more seeds, longer learning, more scenarios compiled."""
    session.install("-e", ".[test]")
    session.run("pytest", "-m", "slow", *session.posargs)


@nox.session
@nox.parametrize("end", ["lowest", "newest"])
def ranges(session: nox.Session, end: str) -> None:
    """The default test run at one end of every dependency's range; the table goes to docs/design.md."""
    session.install("packaging")
    held = []
    if end == "lowest":
        versions = session.run("python", "-m", "tests.programs.ranges", "constraints", silent=True)
        path = Path(session.create_tmp()) / "lowest.txt"
        path.write_text(versions)
        held = ["-c", str(path)]
    session.install("--upgrade", "--upgrade-strategy", "eager", *held, "-e", ".[test]")
    session.run("python", "-m", "tests.programs.ranges", end)


@nox.session
def recipes(session: nox.Session) -> None:
    """Long learning runs; results go to docs/results."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.programs.learning.measure", *session.posargs)


@nox.session
def study(session: nox.Session) -> None:
    """Critics' layouts with five seeds each; the page goes to docs/studies."""
    session.install("-e", ".[report]")
    session.run("ctde-mappo", "study=critic_layouts", *session.posargs)
    session.run("ctde", "critic-layouts", "output=docs/studies")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; warnings are errors."""
    session.install("-e", ".[docs]")
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "build/docs")


@nox.session
def wheel(session: nox.Session) -> None:
    """Install the wheel outside the checkout, run each console script, check its top-level names."""
    path = _install_wheel(session)
    names = {name.split("/")[0] for name in zipfile.ZipFile(path).namelist()}
    unexpected = {name for name in names if name != "ctde_kit" and not name.endswith(".dist-info")}
    if unexpected:
        session.error(f"the wheel has the top-level names {sorted(unexpected)}: expected ctde_kit alone")
    quick = [
        "task.n_envs=6",
        "frames_per_batch=600",
        "total_frames=600",
        "evaluation.episodes=4",
        "minibatch_frames=100",
    ]
    with tempfile.TemporaryDirectory() as elsewhere, session.chdir(elsewhere):
        for script in ("ctde-mappo", "ctde-ippo", "ctde-happo"):
            session.run(script, *quick)
        discrete = ["task.continuous_actions=false", *quick[:-1]]
        for script in ("ctde-qmix", "ctde-vdn", "ctde-iql", "ctde-qplex"):
            session.run(script, *discrete, "updates_per_frame=0.02")
        for script in ("ctde-maddpg", "ctde-masac", "ctde-isac"):
            session.run(script, *quick[:-1], "updates_per_frame=0.02")
        session.run("ctde-pqn", *discrete, "minibatch_frames=100")
        session.run("ctde-coma", *discrete, "minibatch_frames=100")
        sides = ["task=vmas/simple_tag", "adversary=[random,greedy_chase]", "agent=random"]
        session.run("ctde", "cross-play", *sides, "episodes=4")
        session.run("ctde", "mappo", "--help", silent=True)


@nox.session
def bench(session: nox.Session) -> None:
    """Benchmarks, beside BenchMARL in an environment of its own; tables go to docs/benchmarks.md."""
    session.install("-e", ".[test]")
    _install_benchmarl(session)
    parts = ("plain_parts", "vmas_step", "training_speed", "recurrent_speed", "worker_speed", "compile_time", "memory")
    if "JAXMARL_PYTHON" in os.environ:
        parts = (*parts, "jaxmarl_speed")
    for part in (*parts, "page"):
        session.run("python", "-m", f"tests.programs.benchmarks.{part}")


@nox.session
def peers(session: nox.Session) -> None:
    """BenchMARL on the tasks of `benchmark=vmas_small`: ``nox -s peers -- OUTPUT``, for ``ctde report``."""
    session.install("-e", ".[report]")
    _install_benchmarl(session)
    session.run("python", "-m", "tests.programs.benchmarks.benchmarl_suite", *session.posargs)


@nox.session
def distributed(session: nox.Session) -> None:
    """Collectors and learners in processes of Ray: the same numbers as in one process, faults, nothing left behind."""
    session.install("-e", ".[test,ray]")
    session.run("pytest", "-n", "0", "-m", "ray", "tests/distributed", *session.posargs)


@nox.session
def extras(session: nox.Session) -> None:
    """What the default run skips for want of a package: SMAX, RWARE, OpenSpiel, and the sweepers and launchers."""
    session.install("-e", ".[test,smax,rware,openspiel,sweep]")
    files = ["envs/test_smax.py", "envs/pettingzoo/test_pettingzoo.py", "recipes/test_sweeps.py"]
    paths = [f"tests/{file}" for file in (*files, "test_public_names.py")]
    session.run("pytest", "-n", "0", *paths, *session.posargs)


@nox.session
def gpu(session: nox.Session) -> None:
    """On a machine with a CUDA device and a CUDA build of torch: parity with the CPU, and speed."""
    session.install("-e", ".[test]")
    session.run("pytest", "-n", "0", "-m", "gpu", "tests/gpu/test_parity.py")
    session.run("python", "-m", "tests.programs.benchmarks.gpu_speed", *session.posargs)


@nox.session
def gpu_rehearsal(session: nox.Session) -> None:
    """Without a device, but with a CUDA build of torch: nothing leaves the device or waits for it."""
    session.install("-e", ".[test]")
    session.run("pytest", "-n", "0", "-m", "gpu", "tests/gpu/test_rehearsal.py")


@nox.session
def scenarios(session: nox.Session) -> None:
    """Every shipped VMAS scenario, compiled against plain; the table goes to docs/environments.md."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.programs.scenarios.compiled_scenarios", *session.posargs)


@nox.session
def agreement(session: nox.Session) -> None:
    """Compiled and eager: the iterations of one run, and fifty seeds each way; results go to docs/results."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.programs.learning.compiled_iterations")
    session.run("python", "-m", "tests.programs.learning.compile_agreement")


@nox.session
def reliability(session: nox.Session) -> None:
    """Kills, full disks, damaged and hostile files; the figures go to docs/reliability.md."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.reliability.measure", *session.posargs)


def _install_benchmarl(session: nox.Session) -> None:
    """Install BenchMARL in an environment of its own: it pins an older torchrl."""
    peer = Path(session.create_tmp()) / "benchmarl"
    session.run("python", "-m", "venv", str(peer))
    session.run(str(peer / "bin" / "pip"), "install", "-q", "benchmarl==1.5.2", "vmas", external=True)
    session.env["BENCHMARL_PYTHON"] = str(peer / "bin" / "python")


def _install_wheel(session: nox.Session) -> Path:
    session.install("build>=1.2")
    target = Path(session.create_tmp())
    for old in target.glob("*.whl"):
        old.unlink()
    _forget_builds()
    session.run("python", "-m", "build", "--wheel", "--outdir", str(target), str(ROOT), silent=True)
    path = next(target.glob("*.whl")).absolute()
    session.install(str(path))
    session.install("--force-reinstall", "--no-deps", str(path))
    return path


def _installed_copy(session: nox.Session) -> Path:
    """A folder with the package as a wheel installs it, without its dependencies, and with the tools' configuration."""
    target = Path(session.create_tmp()).absolute() / "installed"
    shutil.rmtree(target, ignore_errors=True)
    _forget_builds()
    session.run("python", "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), str(ROOT))
    shutil.copy(ROOT / "pyproject.toml", target)
    return target


def _forget_builds() -> None:
    """Setuptools would put what an earlier build left into a wheel, files that are gone since among them."""
    shutil.rmtree(ROOT / "build" / "lib", ignore_errors=True)
