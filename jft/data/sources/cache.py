# SPDX-License-Identifier: Apache-2.0
"""Compressed files, unpacked into the cache folder."""

import gzip
import hashlib
import shutil
import zlib
from pathlib import Path

from jft.files import cache_folder, write_atomically
from jft.types import InputError

BLOCK = 1 << 20  # bytes read at once


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
