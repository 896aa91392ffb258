# SPDX-License-Identifier: Apache-2.0
"""The folder of one step: how it is named, listed, written, read and deleted.

It is written below a hidden temporary name, sealed with the digest of every file,
flushed to the disk, and renamed: a folder with a plain number for a name that holds
the sums is a finished save. What exists is asked of the disk each time, because a
list in memory can hold a save that failed.

    00000120/arrays/        every leaf, by path, in Orbax's format
    00000120/manifest.json  identity of the run, shape, dtype and digest of each leaf
    00000120/run.json       data-stream state and metric history
    00000120/SHA256SUMS     of all of the above, for ``sha256sum -c``
"""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jft.checkpoint import arrays, sums
from jft.checkpoint.manifest import CheckpointError, CorruptError, Leaf, Manifest

_ARRAYS = "arrays"
_MANIFEST = "manifest.json"
_RUN = "run.json"


def list_steps(directory: Path) -> list[int]:
    """Return the finished steps below ``directory``, ascending."""
    if not directory.is_dir():
        return []
    return sorted(
        int(entry.name)
        for entry in directory.iterdir()
        if entry.name.isdecimal()
        and entry.name == _name(int(entry.name))
        and (entry / sums.SUMS_FILE).exists()
    )


def find(directory: Path, step: int) -> Path:
    """Return the folder of a finished step.

    Raises:
      CheckpointError: if there is none; it lists those there are.
    """
    if step not in list_steps(directory):
        raise CheckpointError(
            f"there is no finished checkpoint of step {step} in {directory}; "
            f"there are steps {list_steps(directory)}."
        )
    return directory / _name(step)


def write(
    directory: Path, manifest: Manifest, host: Mapping[str, np.ndarray], run: str
) -> None:
    """Write the step that ``manifest`` names, whole or not at all."""
    building = directory / f".{_name(manifest.step)}.tmp"
    try:
        building.mkdir()
        leaves = arrays.write(building / _ARRAYS, host)
        manifest = dataclasses.replace(manifest, leaves=leaves)
        (building / _MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        (building / _RUN).write_text(run, encoding="utf-8")
        sums.seal(building)
        delete(directory, manifest.step)  # a rename cannot replace a folder
        building.rename(directory / _name(manifest.step))
        sums.flush(directory)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def read_manifest(folder: Path) -> Manifest:
    """Read what a step says about itself, without checking its files.

    Raises:
      CorruptError: if it says nothing readable.
      CheckpointError: if another version of jft wrote it.
    """
    path = folder / _MANIFEST
    try:
        return Manifest.from_json(path.read_bytes().decode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CorruptError(f"{path} cannot be read: {error}") from None
    except CheckpointError as error:
        raise type(error)(f"{path}: {error}") from None


def read_arrays(folder: Path, leaves: Mapping[str, Leaf]) -> dict[str, np.ndarray]:
    """Read the leaves and compare each with its digest."""
    return arrays.read(folder / _ARRAYS, leaves)


def read_run(folder: Path) -> dict[str, Any]:
    """Read the data-stream state and the history; call it on verified files."""
    return json.loads((folder / _RUN).read_text(encoding="utf-8"))


def delete(directory: Path, step: int) -> None:
    """Delete a step if it is there, hidden first: half of it is never listed."""
    folder = directory / _name(step)
    if folder.exists():
        hidden = directory / f".{_name(step)}.deleted.tmp"
        shutil.rmtree(hidden, ignore_errors=True)
        folder.rename(hidden)
        shutil.rmtree(hidden)


def prepare(directory: Path) -> None:
    """Create ``directory`` and remove what killed saves have left in it.

    Raises:
      CheckpointError: if it cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for entry in directory.glob(".[0-9]*.tmp"):
            shutil.rmtree(entry)
    except OSError as error:
        raise CheckpointError(
            f"cannot write checkpoints to {directory}: {error}. Give a directory that "
            "can be written."
        ) from error


def _name(step: int) -> str:
    return f"{step:08d}"
