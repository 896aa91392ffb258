# SPDX-License-Identifier: Apache-2.0
"""File digests of a checkpoint folder: ``SHA256SUMS``, as ``sha256sum -c`` reads it.

The arrays' storage format has no checksum of its own for the data, and follows
symbolic links; so every file is hashed when a folder is sealed, and links are refused.
"""

import hashlib
import os
import stat
from pathlib import Path

from jft.checkpoint.manifest import CorruptError

SUMS_FILE = "SHA256SUMS"


def seal(folder: Path) -> None:
    """Hash every file below ``folder`` and flush all of it to the disk."""
    (folder / SUMS_FILE).write_text(_to_text(_hash_files(folder)), encoding="utf-8")
    for parent, _, names in os.walk(folder):
        for name in names:
            flush(Path(parent, name))
        flush(Path(parent))


def verify(folder: Path) -> None:
    """Check that every file below ``folder`` is as it was sealed.

    Raises:
      CorruptError: naming each changed, missing or extra file, or a link.
    """
    try:
        found = _hash_files(folder)
        text = (folder / SUMS_FILE).read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CorruptError(f"{folder} cannot be read: {error}") from None
    if text == _to_text(found):
        return
    sealed = dict(
        line.split("  ", 1)[::-1] for line in text.splitlines() if "  " in line
    )
    changed = sorted(n for n in found.keys() & sealed.keys() if found[n] != sealed[n])
    raise CorruptError(
        f"the files of {folder} are not those that were saved: "
        f"changed {changed}, missing {sorted(sealed.keys() - found.keys())}, "
        f"extra {sorted(found.keys() - sealed.keys())} (see {SUMS_FILE})."
    )


def flush(path: Path) -> None:
    """Ask the operating system to write a file or folder through to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _hash_files(folder: Path) -> dict[str, str]:
    """Return relative name -> SHA-256 of every file but the sums themselves."""
    sums: dict[str, str] = {}
    _refuse_special(folder)
    for parent, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            _refuse_special(Path(parent, name))
        for name in names:
            path = Path(parent, name)
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            sums[path.relative_to(folder).as_posix()] = digest
    sums.pop(SUMS_FILE, None)
    return sums


def _refuse_special(path: Path) -> None:
    """Raise if ``path`` is a link, device or pipe: only files and folders are ours."""
    mode = path.lstat().st_mode
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise CorruptError(
            f"{path} is a symbolic link or special file; a checkpoint has only plain "
            "files and folders: copy it again with links followed."
        )


def _to_text(sums: dict[str, str]) -> str:
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
