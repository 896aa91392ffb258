# SPDX-License-Identifier: Apache-2.0
"""Files that are there whole or not at all; the folder of what can be made again."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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


def cache_folder() -> Path:
    """Return ``$JFT_CACHE``, or ``~/.cache/jft``; everything in it may be deleted."""
    return Path(os.environ.get("JFT_CACHE") or Path.home() / ".cache" / "jft")


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Give the path of a file to write, which takes its place when it is whole.

    Each process writes a file of its own, so that several may do so at once; the last
    one stays. Where writing fails, nothing is left.

    Example:
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     with write_atomically(Path(folder, "new", "a.txt")) as partial:
      ...         _ = partial.write_text("all of it")
      ...     [(file.name, file.read_text()) for file in Path(folder, "new").iterdir()]
      [('a.txt', 'all of it')]
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".partial")
    partial = Path(name)
    try:
        yield partial
        os.fsync(handle)
        partial.replace(path)
    finally:
        os.close(handle)
        partial.unlink(missing_ok=True)
