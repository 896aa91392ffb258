# SPDX-License-Identifier: Apache-2.0
"""How a script starts and ends: flags in, one sentence and an exit status out.

The overrides are typed by the schema instead of by the value that a config happens to
hold (as ``ml_collections.config_flags`` does), so that None can replace a number, a
duration can change its unit, and every fault is one sentence.
"""

import os
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

import jax
from absl import flags

from jft import processes
from jft.config.files import load_config_file
from jft.config.overrides import apply_overrides, split_overrides
from jft.config.resolve import resolve
from jft.config.schema import Config
from jft.types import InputError, Interrupted

EXIT_INPUT = 2  # the user's input is at fault
EXIT_INTERRUPTED = 75  # stopped by a signal after saving; run again to go on


class Invocation(NamedTuple):
    """What a script that takes a config was asked for."""

    config: Config
    config_name: str  # the config file's name without .py
    workdir: str | None  # None: choose one


def new_flags() -> flags.FlagValues:
    """Return an empty set of flags, for ``flags.DEFINE_string(…, flag_values)``.

    Each script has its own set, so that several can be imported in one process.
    """
    return flags.FlagValues()


def define_process_flags(values: flags.FlagValues) -> None:
    """Define the flags of a script that may run as several processes."""
    flags.DEFINE_boolean(
        "distributed",
        False,
        "One of several processes; the cluster's environment says which.",
        values,
    )
    flags.DEFINE_string(
        "coordinator",
        None,
        "With --distributed: host:port of process 0, where the environment does not "
        "say.",
        values,
    )
    flags.DEFINE_integer(
        "num_processes", None, "Likewise: of the run.", flag_values=values
    )
    flags.DEFINE_integer(
        "process_id", None, "Likewise: of this one, from 0.", flag_values=values
    )


def run(
    main: Callable[[Invocation], int | None],
    *,
    flag_values: flags.FlagValues | None = None,
    argv: Sequence[str] | None = None,
) -> NoReturn:
    """Run a script that takes ``--config``, its overrides, ``--workdir``, ``--debug``.

    It also takes the flags of `define_process_flags`. Of several processes, all but
    the main one print only their errors.

    Args:
      main: the script; what it returns is the exit status, None is 0.
      flag_values: holds the script's own flags, if it has any.
      argv: the command line, ``sys.argv`` by default.

    Raises:
      SystemExit: always; status 2 and one sentence on stderr for an ``InputError``,
        75 for an ``Interrupted`` or a KeyboardInterrupt.
    """
    values = new_flags() if flag_values is None else flag_values
    _define("config", "The config: file.py or file.py:argument,argument=value.", values)
    _define("workdir", "Folder of the run; runs/<config>/<time> if absent.", values)
    if "distributed" not in values:
        define_process_flags(values)

    def start(words: Sequence[str]) -> int | None:
        overrides, rest = split_overrides(words)
        _parse_flags(values, rest)
        if not values["config"].value:
            raise InputError(
                "no --config was given; name a config file, for example "
                "--config=configs/digits.py."
            )
        config_name, settings = load_config_file(values["config"].value)
        config = resolve(apply_overrides(settings, overrides))
        _start_processes(values)
        return main(Invocation(config, config_name, values["workdir"].value))

    _run(start, values, argv)


def run_without_config(
    main: Callable[[], int | None],
    *,
    flag_values: flags.FlagValues,
    argv: Sequence[str] | None = None,
) -> NoReturn:
    """Run a script that takes only its own flags and ``--debug``; else as ``run``.

    Those of `define_process_flags` are its own, if it has them.
    """

    def start(words: Sequence[str]) -> int | None:
        _parse_flags(flag_values, words)
        _start_processes(flag_values)
        return main()

    _run(start, flag_values, argv)


def _run(
    start: Callable[[Sequence[str]], int | None],
    values: flags.FlagValues,
    argv: Sequence[str] | None,
) -> NoReturn:
    """Turn what the script raises into an exit status."""
    words = list(sys.argv if argv is None else argv)
    debug = any(word in ("--debug", "--debug=true", "--debug=True") for word in words)
    if "debug" not in values:
        flags.DEFINE_boolean("debug", False, "Show tracebacks.", values)
        flags.DEFINE_boolean("help", False, "Show the flags.", values)
    # grain reads its settings from absl's global flags and refuses unparsed ones
    flags.FLAGS(words[:1])
    try:
        status = start(words) or 0
    except InputError as error:
        if debug:
            raise
        print(f"{_who()}error: {error}", file=sys.stderr)
        status = EXIT_INPUT
    except (Interrupted, KeyboardInterrupt) as error:
        if debug:
            raise
        told = f"interrupted{f': {error}' if str(error) else ''}"
        print(f"{_who()}{told}", file=sys.stderr)
        status = EXIT_INTERRUPTED
    sys.exit(status)


def _start_processes(values: flags.FlagValues) -> None:
    """Join the other processes if asked to; only the main one goes on to print."""
    if "distributed" not in values:
        return
    names = ("coordinator", "num_processes", "process_id")
    given = {name: values[name].value for name in names}
    if values["distributed"].value:
        processes.start(**given)
        if not processes.is_main():
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    elif named := [f"--{name}" for name, value in given.items() if value is not None]:
        raise InputError(
            f"{', '.join(named)} without --distributed; add it to run several "
            "processes, or leave the rest out to run one."
        )


def _who() -> str:
    """Say which of several processes speaks, but for the main one."""
    if not jax.distributed.is_initialized() or processes.is_main():
        return ""
    return f"process {jax.process_index()}: "


def _define(name: str, text: str, values: flags.FlagValues) -> None:
    if name not in values:
        flags.DEFINE_string(name, None, text, values)


def _parse_flags(values: flags.FlagValues, words: Sequence[str]) -> None:
    """Parse flags; every word must be one."""
    for name in values:
        values[name].unparse()  # a script that runs twice in a process starts anew
    try:
        rest = values(words)
    except flags.Error as error:
        raise InputError(f"{error}. --help lists the flags.") from error
    if values["help"].value:
        print(values.get_help())
        sys.exit(0)
    if rest[1:]:
        raise InputError(
            f"unexpected argument {rest[1]!r}: everything is given by flags such as "
            "--workdir=folder; --help lists them."
        )
