# SPDX-License-Identifier: Apache-2.0
"""Batches placed on the device ahead of their use."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

from jft.types import Batch, InputError


class Prefetch(Iterator[Any]):
    """Batches placed ahead of their use; made by `prefetch_to_device`."""

    def __init__(
        self, batches: Iterable[Batch], put_fn: Callable[[Batch], Any], size: int
    ) -> None:
        self.wait_seconds = 0.0  # spent waiting for batches so far
        self._batches = iter(batches)
        self._put_fn = put_fn
        self._size = size
        self._ahead: deque[Any] = deque()

    def __next__(self) -> Any:
        before = time.perf_counter()
        while len(self._ahead) < self._size:
            batch = next(self._batches, None)
            if batch is None:
                break
            self._ahead.append(self._put_fn(batch))
        self.wait_seconds += time.perf_counter() - before
        if not self._ahead:
            raise StopIteration
        return self._ahead.popleft()

    def close(self) -> None:
        """Drop what is ahead and close the batches."""
        self._ahead.clear()
        if isinstance(self._batches, Generator):
            self._batches.close()


def prefetch_to_device(
    batches: Iterable[Batch], put_fn: Callable[[Batch], Any], *, size: int = 2
) -> Prefetch:
    """Place batches ahead of their use.

    Placing is asynchronous in JAX: a copy to the device runs while earlier steps do.

    Args:
      batches: batches of host arrays.
      put_fn: places one batch, for example ``jax.device_put``.
      size: batches placed before the one that is returned is asked for, at least 1.

    Returns:
      An iterator with ``wait_seconds``, the time its consumer has waited.

    Example:
      >>> batches = [{"x": 1}, {"x": 2}, {"x": 3}]
      >>> list(prefetch_to_device(batches, lambda batch: 10 * batch["x"]))
      [10, 20, 30]
    """
    if size < 1:
        raise InputError(f"prefetch needs a size of at least 1; got {size}.")
    return Prefetch(batches, put_fn, size)
