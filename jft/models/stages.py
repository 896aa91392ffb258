# SPDX-License-Identifier: Apache-2.0
"""The stages of a forward: 0 embeds, i + 1 is block i, the last is the head."""

from typing import NamedTuple

from jft.types import InputError


class Stages(NamedTuple):
    """The stages from boundary ``start`` to boundary ``stop``."""

    start: int
    stop: int
    num_layers: int  # blocks
    num_read: int | None = None  # tokens that the head reads, the first; None: all

    def read_of(self, block: int) -> int | None:
        """How many of a block's tokens anything reads: of the last, what the head does.

        So the last block of a model whose head reads one token asks with that token
        alone: all other blocks' work is needed for its keys and values.
        """
        return self.num_read if block == self.num_layers - 1 else None

    @property
    def embed(self) -> bool:
        """Whether stage 0 runs."""
        return self.start == 0

    @property
    def blocks(self) -> range:
        """The blocks that run."""
        first = max(self.start, 1) - 1
        return range(first, max(first, min(self.stop, self.num_layers + 1) - 1))

    def part(self, first: int, count: int) -> range:
        """The blocks that run of the ``count`` from ``first`` on, numbered from 0.

        >>> make_stages(2, 6, num_layers=5).part(3, 2)  # a decoder behind an encoder
        range(0, 2)
        """
        start = max(self.blocks.start - first, 0)
        return range(start, max(start, min(self.blocks.stop - first, count)))

    def closes(self, block: int) -> bool:
        """Whether that block runs, so that the norm behind it does."""
        return block in self.blocks

    @property
    def head(self) -> bool:
        """Whether the last stage runs."""
        return self.stop == self.num_layers + 2


def make_stages(
    start: int, stop: int | None, *, num_layers: int, num_read: int | None = None
) -> Stages:
    """Check the boundaries; ``stop=None`` runs to the end.

    >>> make_stages(2, None, num_layers=3).blocks
    range(1, 3)
    """
    num_stages = num_layers + 2
    stop = num_stages if stop is None else stop
    if not 0 <= start < stop <= num_stages:
        raise InputError(
            f"stages start={start}, stop={stop} do not fit: this model has stages "
            f"0 to {num_stages - 1}, so 0 <= start < stop <= {num_stages}."
        )
    return Stages(start, stop, num_layers, num_read)
