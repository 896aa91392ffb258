# SPDX-License-Identifier: Apache-2.0
"""Text files that are there whole or not at all."""

import os
from pathlib import Path


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file so that a reader sees all of it or what was there before.

    It is written and flushed to the disk beside its place, then renamed into it.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)
