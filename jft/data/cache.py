# SPDX-License-Identifier: Apache-2.0
"""The folder of what can be made again, and files unpacked into it."""

import gzip
import hashlib
import os
import shutil
import tempfile
import zlib
from pathlib import Path

from jft.types import InputError

BLOCK = 1 << 20  # bytes read at once


def cache_folder() -> Path:
    """Return ``$JFT_CACHE``, or ``~/.cache/jft``; everything in it may be deleted."""
    return Path(os.environ.get("JFT_CACHE") or Path.home() / ".cache" / "jft")


def unpack_gzip(path: Path) -> Path:
    """Decompress a ``.gz`` file into the cache folder, once for the same content.

    Args:
      path: of a file that exists.

    Returns:
      The unpacked file, whole: it is written beside its place and renamed into it.

    Raises:
      InputError: if the file is no whole gzip file, or the cache cannot be written.
    """
    unpacked = cache_folder() / "unpacked" / _digest_of(path)
    if unpacked.exists():
        return unpacked
    try:
        unpacked.parent.mkdir(parents=True, exist_ok=True)
        _write_unpacked(path, unpacked)
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


def _write_unpacked(path: Path, unpacked: Path) -> None:
    # a name of its own: several processes may unpack the same file at once
    handle, partial = tempfile.mkstemp(dir=unpacked.parent, suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as target, gzip.open(path) as packed:
            shutil.copyfileobj(packed, target, BLOCK)
        os.replace(partial, unpacked)
    finally:
        Path(partial).unlink(missing_ok=True)


def _digest_of(path: Path) -> str:
    state = hashlib.blake2b(digest_size=16)
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            state.update(block)
    return state.hexdigest()
