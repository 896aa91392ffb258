# SPDX-License-Identifier: Apache-2.0
"""Several processes that work as one: how they start, and how they agree.

All of them run the same program, each on its own devices. The main process, number 0,
alone writes and prints. Functions marked collective must be called by every process,
in the same order and from the main thread; in a single process they are plain calls.
"""

import functools
import pickle
import socket
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jft.types import InputError

# how long a process that ends waits for the others; then jax ends all of them
SHUTDOWN_SECONDS = 60
MIN_BYTES = 1 << 12  # of what processes send each other
START_SECONDS = 300  # how long the processes wait for each other to start

T = TypeVar("T")


def start(
    *,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Join the other processes of the run, before anything is computed.

    What is None is read from the cluster's environment, as jax does it: TPU VM, SLURM,
    Open MPI, Kubernetes.

    Args:
      coordinator: ``host:port`` of process 0, as all hosts reach it.
      num_processes: of the run.
      process_id: of this process, from 0.

    Raises:
      InputError: if a value is wrong, the environment does not say what is missing, or
        the processes do not find each other.
    """
    given = (coordinator, num_processes, process_id)
    _check(*given)
    if coordinator is not None and process_id:
        _wait_for(coordinator)  # where jax would abort
    # SIGTERM is ours to handle: see `jft.checkpoint.StopSignal`
    jax.config.update("jax_enable_preemption_service", False)
    # CPUs may otherwise run two programs that exchange something in another order in
    # each process, which then wait for each other for ever; other devices have queues
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    try:
        jax.distributed.initialize(
            *given,
            cluster_detection_method=None if None in given else "deactivate",
            initialization_timeout=START_SECONDS,
            shutdown_timeout_seconds=SHUTDOWN_SECONDS,
        )
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"the environment does not say how the processes find each other ({error})"
            ": it is not that of a TPU VM, SLURM's srun, Open MPI's mpirun or a "
            "Kubernetes job. Give --coordinator=host:port, --num_processes and "
            "--process_id."
        ) from error
    except (RuntimeError, OSError) as error:
        raise InputError(
            f"this process cannot join the others ({error}). Start all of them with "
            "the same command, in an environment that says which is which."
        ) from error


def is_main() -> bool:
    """Whether this is the process that writes and prints."""
    return jax.process_index() == 0


def gather(value: T) -> list[T]:
    """Return every process's value, in their order. Collective."""
    if jax.process_count() == 1:
        return [value]
    mine = np.frombuffer(pickle.dumps(value), np.uint8)
    sizes = multihost_utils.process_allgather(np.asarray(len(mine), np.int32))
    # of few sizes, each of which jax compiles once
    room = max(MIN_BYTES, 1 << int(sizes.max() - 1).bit_length())
    padded = np.zeros(room, np.uint8)
    padded[: len(mine)] = mine
    rows = multihost_utils.process_allgather(padded)
    # the bytes come from processes of this very run
    return [
        pickle.loads(row[:size].tobytes())
        for row, size in zip(rows, sizes.tolist(), strict=True)
    ]


def from_main(fn: Callable[[], T]) -> T:
    """Call ``fn`` in the main process, and give what it returns to all. Collective.

    Raises:
      Exception: in every process, what ``fn`` raised.
    """
    if jax.process_count() == 1:
        return fn()
    outcome: _Outcome = _try(fn) if is_main() else _Outcome()
    result = gather(outcome.to_send())[0]
    error = outcome.error or result.error
    if error is not None:
        raise error
    return result.value


def together(fn: Callable[[], T]) -> T:
    """Call ``fn`` in every process; what one raises, all raise. Collective.

    ``fn`` must not be collective itself.
    """
    if jax.process_count() == 1:
        return fn()
    outcome = _try(fn)
    errors = gather(outcome.to_send()._replace(value=None))
    if outcome.error is not None:
        raise outcome.error
    for index, (_, error) in enumerate(errors):
        if error is not None:
            raise type(error)(f"in process {index}: {error}")
    return outcome.value


class Vote:
    """Asks whether any process says yes. Collective.

    The answer is that of the call before: it is there by now, so no process waits for
    its devices. It is the same in all processes.
    """

    def __init__(self) -> None:
        self._cast: jax.Array | None = None

    def __call__(self, mine: bool) -> bool:
        """Cast this process's vote and return the answer to the last one."""
        if jax.process_count() == 1:
            return mine
        before, self._cast = self._cast, _any(mine)
        return before is not None and bool(before)


def is_here(x: Any) -> bool:
    """Whether this process has all of an array, so that it needs no other's part."""
    if not isinstance(x, jax.Array):
        return True
    return x.is_fully_addressable or x.is_fully_replicated


def whole(x: Any) -> np.ndarray:
    """Fetch an array to the host, parts of other processes too. Collective."""
    if is_here(x):
        return np.asarray(jax.device_get(x))
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))


def whole_tree(tree: Any) -> Any:
    """Fetch a tree to each host, to work on alone. Collective.

    In a single process it stays where it is.
    """
    return tree if jax.process_count() == 1 else jax.tree.map(whole, tree)


class _Outcome(NamedTuple):
    """What a call returned or raised."""

    value: Any = None
    error: Exception | None = None

    def to_send(self) -> "_Outcome":
        """The same with an error that can be pickled."""
        try:
            pickle.loads(pickle.dumps(self.error))
        except Exception:
            return self._replace(error=RuntimeError(repr(self.error)))
        return self


def _try(fn: Callable[[], Any]) -> _Outcome:
    try:
        return _Outcome(value=fn())
    except Exception as error:
        return _Outcome(error=error)


def _any(mine: bool) -> jax.Array:
    """Start to count the processes that say yes."""
    votes, count = _ballot()
    flags = np.full(jax.local_device_count(), mine)
    return count(jax.make_array_from_process_local_data(votes, flags))


@functools.cache
def _ballot() -> tuple[NamedSharding, Callable[[jax.Array], jax.Array]]:
    """Where votes are, one a device, and the program that counts them."""
    mesh = Mesh(np.asarray(jax.devices()), ("all",))
    count = jax.jit(jax.numpy.any, out_shardings=NamedSharding(mesh, P()))
    return NamedSharding(mesh, P("all")), count


def _wait_for(coordinator: str) -> None:
    """Wait until process 0 listens."""
    host, _, port = coordinator.rpartition(":")
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
            return
        except OSError as error:  # not started yet, or its name not known yet
            if time.monotonic() > until:
                raise InputError(
                    f"process 0 does not answer at {coordinator} ({error}) since "
                    f"{START_SECONDS} seconds. Start it, with the same --coordinator, "
                    "and see that all hosts reach that address and port."
                ) from error
        time.sleep(0.5)


def _check(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> None:
    """Refuse values that cannot be right."""
    if coordinator is not None:
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise InputError(
                f"--coordinator is {coordinator!r}; expected the host and a port of "
                "process 0, such as 10.0.0.1:1234."
            )
    if num_processes is not None and num_processes < 1:
        raise InputError(f"--num_processes is {num_processes}; expected 1 or more.")
    if process_id is None:
        return
    most = "" if num_processes is None else f" to {num_processes - 1}"
    if process_id < 0 or (num_processes is not None and process_id >= num_processes):
        raise InputError(
            f"--process_id is {process_id}, but the processes are numbered from 0"
            f"{most}; give each its own number."
        )
