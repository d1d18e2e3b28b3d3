"""The check of a command line, before hydra reads it: each mistake is one line in the words of the command line."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, ValueType
from hydra.errors import HydraException

from ctde_kit.errors import UserError
from ctde_kit.recipes.commands.options import CONF, Options, options_of
from ctde_kit.recipes.commands.short_forms import OPEN
from ctde_kit.recipes.commands.task_params import param_names
from ctde_kit.recipes.configs.checks import Declared, field_types, find_misfit

# Several jobs: hydra's flags and its option.
MULTIRUN = ("-m", "--multirun", "hydra.mode=MULTIRUN")
HELP = ("--help", "-h")
TRUE = ("true", "yes", "on", "1")
BOOLEANS = (*TRUE, "false", "no", "off", "0")


def check_arguments(program: str, options: Options, arguments: list[str]) -> None:
    """Raise ``UserError`` for the first mistake in a command line that can be known from the types of its options.

    Args:
        program: its name.
        options: that the program has.
        arguments: as the user wrote them, flags included.
    """
    given = [argument for argument in arguments if argument not in (*MULTIRUN, *HELP)]
    for argument in given:
        _check_form(program, argument)
    chosen: dict[str, list[str]] = {}
    for argument in given:
        name, _, value = argument.partition("=")
        if "@" in name or name in options.choices or _is_folder(name):
            chosen[name] = _checked_choice(program, options, name, value)
    # With -m, each job chooses one of several.
    several = max(map(len, chosen.values()), default=1)
    jobs = [{name: values[min(job, len(values) - 1)] for name, values in chosen.items()} for job in range(several)]
    check = _ValueCheck(program, several_jobs(arguments))
    for argument in given:
        for job in jobs:
            if argument.partition("=")[0] not in chosen:
                check(options.with_choices(job), argument)


def several_jobs(arguments: list[str]) -> bool:
    """Whether a command line asks for several jobs, by a flag of hydra or by a study."""
    return any(argument in MULTIRUN or argument.startswith("study=") for argument in arguments)


def has_several_values(argument: str) -> bool:
    """Whether ``NAME=VALUE`` has several values, one for each job, as hydra reads it."""
    try:
        return OverridesParser.create().parse_override(argument).is_sweep_override()
    except HydraException:
        return False


def is_true(argument: str) -> bool:
    """Whether the argument ``NAME=VALUE`` says true, however it is written.

    Raises:
        UserError: for another value.
    """
    value = argument.partition("=")[2]
    if value not in BOOLEANS:
        raise UserError(f"{argument}: expected true or false")
    return value in TRUE


def _check_form(program: str, argument: str) -> None:
    name, separator, value = argument.partition("=")
    lists = f"`{program} --help` lists them"
    if argument.startswith("-"):
        raise UserError(f"{argument}: there is no such flag; options are NAME=VALUE, {lists}")
    if argument.startswith("+"):
        raise UserError(f"{argument}: options need no plus sign; {lists}")
    if argument.startswith("~"):
        raise UserError(f"{argument}: an option cannot be removed; give it a value, or leave it out")
    if not separator or not name:
        raise UserError(f"{argument}: expected an option and its value, NAME=VALUE; {lists}")
    if name in ("hydra.run.dir", "hydra.sweep.dir") and not value:
        raise UserError(f"{argument}: expected a directory")


def _is_folder(name: str) -> bool:
    return "." not in name and (CONF / name).is_dir()


def _checked_choice(program: str, options: Options, option: str, value: str) -> list[str]:
    """What is chosen for ``option``: several with ``-m``."""
    folder = option.partition("@")[0]
    if option not in options.choices:
        raise UserError(f"{option}={value}: {_other_choices(program, options, option, value)}")
    known = options_of(folder)
    values = value.split(",")
    for name in values:
        offered = options.offered(option)
        if name in known and name not in offered:
            one_of = f"one of {', '.join(offered)}" if len(offered) > 1 else offered[0]
            raise UserError(f"{option}={name}: it does not fit {program}; choose {one_of}, or run another recipe")
        if name not in known and (name != "null" or options.choices[option] is not None):
            raise UserError(f"{option}={name}: {_no_such_choice(options, option, name, offered)}")
    return values


def _other_choices(program: str, options: Options, option: str, value: str) -> str:
    """The error text for an option that would choose a part, where this command has no such option."""
    folder, _, package = option.partition("@")
    same = [other for other in options.choices if other.partition("@")[0] == folder]
    if same and value not in options_of(folder):
        return f"say whose, as in {same[0]}; {_no_such_choice(options, option, value, options_of(folder))}"
    if same:
        near = [other for other in same if package and other.startswith(option)] or same
        return f"say whose, as in {' or '.join(f'{other}={value}' for other in near)}"
    if not _is_folder(option.partition("@")[0]):
        return f"there is no such option; `{program} --help` lists them"
    return f"{program} has no {option.partition('@')[0]} to choose; it has {', '.join(options.choices)}"


def _no_such_choice(options: Options, option: str, name: str, known: list[str]) -> str:
    inside = [other for other in options.choices if other.partition("@")[2].startswith(f"{option}.")]
    for other in inside:
        if name in options_of(other.partition("@")[0]):
            return f"this is its network; write {other}={name}"
    within = in_same_folder(name, known)
    close = close_choices(name, known)
    hint = f"did you mean {' or '.join(close)}?" if close else f"choose one of {_listed(within)}"
    return f"there is no such {option.partition('@')[0]}; {hint}"


def in_same_folder(name: str, known: Sequence[str]) -> list[str]:
    """The names in ``known`` that have the folder of ``name``, such as ``vmas``; all of them where none has it.

    >>> from ctde_kit.recipes.commands.arguments import in_same_folder
    >>> in_same_folder("vmas/balanse", ["vmas/balance", "lbf/foraging"])
    ['vmas/balance']
    """
    folder = name.rpartition("/")[0]
    return [other for other in known if other.rpartition("/")[0] == folder] or list(known)


def close_choices(name: str, known: Sequence[str]) -> list[str]:
    """Up to three names like ``name`` in its folder; where nothing has its folder, of all names.

    >>> from ctde_kit.recipes.commands.arguments import close_choices
    >>> close_choices("vmas/navgation", ["vmas/navigation", "vmas/balance"])
    ['vmas/navigation']
    """
    folder, _, last = name.rpartition("/")
    siblings = {other.rpartition("/")[2]: other for other in known if other.rpartition("/")[0] == folder}
    if siblings:
        return [siblings[close] for close in difflib.get_close_matches(last, siblings, n=3)]
    if not folder:
        siblings = {other.rpartition("/")[2]: other for other in known}
    close = [siblings[close] for close in difflib.get_close_matches(last, siblings, n=3)]
    return close or difflib.get_close_matches(name, known, n=3)


def _listed(names: list[str]) -> str:
    return ", ".join(names) if len(names) < 20 else f"{', '.join(names[:3])}, ...; `ctde tasks` lists all"


class _ValueCheck:
    """Checks options that have a value of their own: that there is such an option, and the type of its value."""

    def __init__(self, program: str, several: bool) -> None:
        self.program, self.several = program, several
        self.parser = OverridesParser.create()

    def __call__(self, options: Options, argument: str) -> None:
        name, _, given = argument.partition("=")
        root, separator, _ = name.partition(".")
        is_open = root in OPEN and root in field_types(options.config)
        # Hydra's own, `hydra.sweep.dir` and `hydra/sweeper`.
        if root.partition("/")[0] == "hydra" or (is_open and separator):
            return
        if is_open:
            raise UserError(f"{argument}: expected a group and who acts for it, as in {name}.GROUP=VALUE")
        declared = options.types.get(name)
        if name.startswith("task.params.") and "task.params" in options.types:
            declared = Any
        if declared is None:
            raise UserError(f"{argument}: {self._unknown(options, name, given)}")
        if name in options.paths:
            return
        for value in self._values(name, given):
            self._check_value(name, value, declared)

    def _values(self, name: str, given: str) -> list[object]:
        """The value; several with ``-m``."""
        try:
            override = self.parser.parse_override(f"{name}={given}")
            swept = override.is_sweep_override()
            values = _swept(override) if swept else [override.value()]
        except HydraException as error:
            raise UserError(
                f"{name}={given}: cannot be read; put text with special characters in quotes, {name}=\"'TEXT'\""
            ) from error
        if swept and not self.several:
            raise UserError(f"{name}={given}: several values need -m, as in `{self.program} -m {name}={given}`")
        return [getattr(value, "text", value) for value in values]

    def _check_value(self, name: str, value: object, declared: Declared) -> None:
        if isinstance(value, str) and "${" in value:
            raise UserError(
                f"{name}={value}: expected a value, found one that looks up another; write the value itself"
            )
        if declared is bool and str(value).lower() in BOOLEANS:
            return
        if declared in (str, str | None) and isinstance(value, (int, float)):
            return
        if declared == list[str] and isinstance(value, list):
            value = [str(part) if isinstance(part, (int, float)) else part for part in value]
        misfit = find_misfit(value, declared)
        if misfit is not None and declared == list[str] and isinstance(value, str):
            raise UserError(f"{name}={value}: expected a list, {name}=[{value}]")
        if misfit is not None:
            raise UserError(f"{name}{misfit.place}={text(misfit.value)}: expected {misfit.expected}")

    def _unknown(self, options: Options, name: str, given: str) -> str:
        """The error text for an option that does not exist."""
        option = options.choosing(name)
        if option is not None:
            known = options.offered(option)
            return f"write {option}={given}" if given in known else f"{option} chooses it: {_listed(known)}"
        inside = [path for path in options.types if path.startswith(f"{name}.")]
        if inside:
            return f"it has options of its own, {', '.join(inside)}; give one of them"
        having = options.having(name)
        if having:
            return f"not with what is chosen here; it is an option of {', '.join(having)}"
        argument = name.removeprefix("task.")
        if "task.params" in options.types and argument in param_names(options.choices.get("task") or ""):
            return f"there is no such option; did you mean task.params.{argument}?"
        close = _close(name, list(dict.fromkeys([*options.types, *options.choices, *options.siblings(name)])))
        if close:
            return f"there is no such option; did you mean {' or '.join(close)}?"
        return f"there is no such option; `{self.program} --help` lists them"


def _swept(override: Override) -> list[object]:
    """The values of a sweep; for an interval, from which a searching sweeper may choose any value, its two ends."""
    if override.value_type == ValueType.INTERVAL_SWEEP:
        interval = override.value()
        assert isinstance(interval, IntervalSweep)
        return [interval.start, interval.end]
    return list(override.sweep_iterator())


def _close(name: str, known: list[str]) -> list[str]:
    """Options whose name is like ``name``, or whose last part is."""
    last = name.rpartition(".")[2]
    same = [option for option in known if option.rpartition(".")[2] == last]
    return (same or difflib.get_close_matches(name, known, n=3, cutoff=0.7) or _close_last(last, known))[:3]


def _close_last(last: str, known: list[str]) -> list[str]:
    parts = {option.rpartition(".")[2] for option in known}
    close = difflib.get_close_matches(last, parts, n=1, cutoff=0.7)
    return [option for option in known if option.rpartition(".")[2] in close]


def text(value: object) -> str:
    """A value as it stands on a command line, cut to 60 characters."""
    if isinstance(value, bool) or value is None:
        return "null" if value is None else str(value).lower()
    return str(value) if len(str(value)) <= 60 else f"{str(value)[:57]}..."
