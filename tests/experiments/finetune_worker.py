# SPDX-License-Identifier: Apache-2.0
"""Runs experiments.finetune again and again, paying for imports once.

Each line on stdin is a JSON command: ``argv`` and ``log`` of a run, and ``strike``: the
signals that it sends itself at the n-th call of a function; ``script`` names another
script, ``env`` adds to the environment; unless ``drawn``, pictures are empty. The run
is a fork, made before JAX has started any thread. The worker answers with its process
id and, when it has ended, with its status: negative, the signal that ended it.
"""

import functools
import gc
import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

# what the stages import when they are reached
import grain  # noqa: F401
import matplotlib.pyplot  # noqa: F401
import orbax.checkpoint  # noqa: F401
import sklearn.datasets
import sklearn.metrics  # noqa: F401
import tensorboardX  # noqa: F401
import transformers  # noqa: F401
from jax._src import xla_bridge

from experiments import evaluate, finetune
from jft.config import run, run_without_config


def arm(
    function: str, *, call: int, after: bool, signals: list[str], pause: float = 0.0
) -> None:
    """Send this process ``signals`` before (or after) a call of ``module:function``."""
    module, _, qualname = function.partition(":")
    *parents, name = qualname.split(".")
    owner = functools.reduce(getattr, parents, importlib.import_module(module))
    original = getattr(owner, name)
    calls = 0

    @functools.wraps(original)
    def armed(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        struck = calls == call
        if struck and not after:
            strike()
        result = original(*args, **kwargs)
        if struck and after:
            strike()
        return result

    def strike() -> None:
        time.sleep(pause)
        for name in signals:
            os.kill(os.getpid(), getattr(signal, name))

    setattr(owner, name, armed)


def draw_nothing() -> None:
    """Pictures are composed and left empty: drawing takes much of a small run."""
    from matplotlib.figure import Figure

    Figure.savefig = lambda self, path, **_: Path(path).touch()


def start(command: dict[str, Any]) -> None:
    """Become the run."""
    log = os.open(command["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, target in enumerate((nothing, log, log)):
        os.dup2(target, number)
    if command["strike"] is not None:
        arm(**command["strike"])
    if not command["drawn"]:
        draw_nothing()
    os.environ.update(command.get("env", {}))
    argv = ["script", *command["argv"]]
    if command.get("script") == "evaluate":
        run_without_config(evaluate.main, flag_values=evaluate.FLAGS, argv=argv)
    run(finetune.main, argv=argv)


def main() -> None:
    """Serve until stdin ends."""
    gc.freeze()  # a run that looks through it for garbage would copy all of it
    print("ready", flush=True)
    for line in iter(sys.stdin.readline, ""):
        assert not xla_bridge._backends, "JAX has threads: a fork would hang"
        if (process := os.fork()) == 0:
            start(json.loads(line))
        print(process, flush=True)
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
