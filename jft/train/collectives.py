# SPDX-License-Identifier: Apache-2.0
"""What a compiled step sends between devices, read from its text."""

import math
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

# bytes that a device sends, of the n in its group, for each byte of the result: what
# ring algorithms need
SENT: Mapping[str, Callable[[int], float]] = {
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-gather": lambda n: (n - 1) / n,
    "reduce-scatter": lambda n: n - 1,
    "all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1,
}
_KINDS = "|".join(SENT)
_OPERATION = re.compile(
    rf"= (?P<shapes>\(?[^=]*?\)?) (?P<kind>{_KINDS})(?:-start)?\((?P<rest>.*)"
)
_SHAPE = re.compile(r"([a-z]+\d*(?:e\dm\d\w*)?)\[([\d,]*)\]")
_COMMENT = re.compile(r"/\*.*?\*/")
_LISTED = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_MESH = re.compile(r"replica_groups=mesh\[(.*?)\](?:<[^>]*>)? \{(.*?)\}")
_COUNTED = re.compile(r"replica_groups=\[(\d+),(\d+)\]")


class Collectives(NamedTuple):
    """The operations of one kind, each counted once, in a loop too."""

    operations: int
    result_bytes: int  # of one device
    sent_bytes: float  # by one device


def count_collectives(text: str) -> dict[str, Collectives]:
    """Count what devices exchange.

    Args:
      text: ``executable.as_text()`` of a program for several devices.

    Returns:
      Kind -> what there is of it; kinds that do not occur are left out.

    Example:
      >>> line = "%r = f32[8,2]{1,0} all-reduce(%x), replica_groups={{0,1,2,3}}, to=%s"
      >>> count_collectives(line)["all-reduce"]
      Collectives(operations=1, result_bytes=64, sent_bytes=96.0)
    """
    found: dict[str, Collectives] = {}
    for line in _COMMENT.sub("", text).splitlines():
        if not (match := _OPERATION.search(line)):
            continue
        kind, size = match["kind"], _bytes_of(match["shapes"])
        sent = size * SENT[kind](max(_group_size(match["rest"]), 1))
        before = found.get(kind, Collectives(0, 0, 0.0))
        found[kind] = Collectives(
            before.operations + 1, before.result_bytes + size, before.sent_bytes + sent
        )
    return found


def _bytes_of(shapes: str) -> int:
    """Bytes of ``f32[8,2]{1,0}``, or of a tuple of such."""
    total = 0
    for dtype, sizes in _SHAPE.findall(shapes):
        elements = 1
        for size in filter(None, sizes.split(",")):
            elements *= int(size)
        total += elements * _itemsize(dtype)
    return total


def _itemsize(dtype: str) -> int:
    """Bytes of one element; a boolean is a byte."""
    bits = re.search(r"\d+", dtype)
    return max(int(bits[0]) // 8, 1) if bits else 1


def _group_size(text: str) -> int:
    """How many devices exchange with each other."""
    if listed := _LISTED.search(text):
        return len(listed[1].split(","))
    if counted := _COUNTED.search(text):
        return int(counted[2])
    if mesh := _MESH.search(text):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
        # the axes of a group, or a part of one, as in 'axis_0':(1)2
        axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", mesh[2])
        return math.prod(int(part or sizes[name]) for name, part in axes)
    return 1
