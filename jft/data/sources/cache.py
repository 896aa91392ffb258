# SPDX-License-Identifier: Apache-2.0
"""The folder of what can be made again, and files unpacked into it."""

import gzip
import hashlib
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jft.types import InputError

BLOCK = 1 << 20  # bytes read at once


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


def unpack_gzip(path: Path) -> Path:
    """Decompress a ``.gz`` file into the cache folder, once for the same content.

    Args:
      path: of a file that exists.

    Returns:
      The unpacked file, whole: it is written beside its place and renamed into it.

    Raises:
      InputError: if the file is no whole gzip file, or the cache cannot be written.
    """
    unpacked = cache_folder() / "unpacked" / digest_file(path)
    if unpacked.exists():
        return unpacked
    try:
        with (
            write_atomically(unpacked) as partial,
            partial.open("wb") as target,
            gzip.open(path) as packed,
        ):
            shutil.copyfileobj(packed, target, BLOCK)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(
            f"{path} is no whole gzip file: {error}. Fetch it again, or unpack it and "
            "give the unpacked file."
        ) from error
    except OSError as error:
        raise InputError(
            f"{path} cannot be unpacked into {unpacked.parent}: {error.strerror}. Set "
            "JFT_CACHE to a folder with room that can be written."
        ) from error
    return unpacked


def digest_file(path: Path) -> str:
    """Hash a file's content to 32 hexadecimal digits."""
    state = hashlib.blake2b(digest_size=16)
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            state.update(block)
    return state.hexdigest()
