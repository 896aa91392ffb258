# SPDX-License-Identifier: Apache-2.0
"""Read a Hugging Face folder: its JSON files, and its weights leaf by leaf.

Only safetensors are read: pickled weights (.bin) can run code when opened.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jft.models import Family
from jft.params.keys import find_keys
from jft.params.layout import from_tensor
from jft.paths import flatten, unflatten
from jft.types import InputError, Params

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class Unread:
    """A tensor of the checkpoint that the model has no place for; a tree leaf."""

    shape: tuple[int, ...]


@dataclass(frozen=True)
class StoredTensor:
    """A tensor on the disk, read when numpy asks for its values; a tree leaf."""

    file: Path
    key: str
    path: str  # of the parameter, which rules the axes
    family: Family  # and so does this
    shape: tuple[int, ...]  # with our axes

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Read it; the file is mapped only meanwhile, so its pages do not stay."""
        with _open(self.file) as tensors:
            tensor: np.ndarray = tensors.get_tensor(self.key)
        array = from_tensor(self.path, tensor, self.family)
        # in order, so that the copy to a device needs no buffer beside it
        return np.ascontiguousarray(array, dtype)


def read_config(folder: str | Path) -> dict[str, Any]:
    """Read ``config.json``.

    Raises:
      InputError: if the folder or the file is absent, or it holds no JSON object.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(
            f"{str(folder)!r} is no folder; give the path of a Hugging Face model "
            "folder (config.json and model.safetensors)."
        )
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{folder} has no config.json; it is no Hugging Face model folder."
        )
    return _read_json(folder / "config.json")


def read_optional(folder: str | Path, name: str) -> dict[str, Any] | None:
    """Read another JSON file of the folder; None where the folder has none."""
    file = Path(folder) / name
    return _read_json(file) if file.is_file() else None


def read_keys(folder: str | Path) -> frozenset[str]:
    """Read the names of a folder's tensors.

    Raises:
      InputError: as ``load_pretrained``.
    """
    return frozenset(_weight_map(Path(folder)))


def read_tensors(file: Path) -> dict[str, np.ndarray]:
    """Read all of a small safetensors file.

    Raises:
      InputError: if it is absent or damaged, or a value is not finite.
    """
    with _open(file) as tensors:
        keys = tensors.keys()
        read = {key: tensors.get_tensor(key) for key in keys}
    for key, tensor in read.items():
        if tensor.dtype.kind in "fV" and not _finite(tensor):
            raise InputError(
                f"{file}: tensor {key} holds NaN or infinity. Fetch it again, or take "
                "an earlier checkpoint of the training that wrote it."
            )
    return read


def read_notes(file: Path) -> dict[str, str]:
    """Read the texts that a safetensors file has beside its tensors.

    Raises:
      InputError: if it is absent or damaged.
    """
    with _open(file) as tensors:
        return dict(tensors.metadata() or {})


def load_pretrained(
    folder: str | Path, family: Family, abstract_params: Params, *, task: str
) -> Params:
    """Find the model's parameters among the weights of a folder.

    All headers and values are checked here; values are read when they are used, one
    leaf at a time.

    Args:
      folder: holds ``model.safetensors``, or shards and their index.
      family: the model's.
      abstract_params: the model's parameters, as shapes or arrays.
      task: the model's, which may be another than the checkpoint's.

    Returns:
      Nested dicts: `StoredTensor` at the model's paths that the checkpoint has, and
      `Unread` for tensors that the model has no place for. Shapes are the
      checkpoint's, to be compared by ``merge``.

    Raises:
      InputError: names the file or tensor that is absent, damaged or not finite, or
        the two that should be equal and are not.
    """
    folder = Path(folder)
    files = _weight_map(folder)
    shapes = _shapes(folder, files)
    found = find_keys(family, task, flatten(abstract_params), files)
    tree: dict[str, Any] = {
        key.replace(".", "/"): Unread(shapes[key]) for key in found.unused
    }
    for path, key in found.keys.items():
        # a view without memory shows what the layout does to the axes
        view = np.broadcast_to(np.zeros((), np.int8), shapes[key])
        shape = from_tensor(path, view, family).shape
        tree[path] = StoredTensor(folder / files[key], key, path, family, shape)
    _check_finite(folder, {key: files[key] for key in found.keys.values()})
    _check_copies(folder, files, found.copies)
    return unflatten(dict(sorted(tree.items())))


def _weight_map(folder: Path) -> dict[str, str]:
    """Return ``{key: file name}``, from the index or from the one file."""
    if (folder / WEIGHTS).is_file():
        with _open(folder / WEIGHTS) as tensors:
            return dict.fromkeys(tensors.keys(), WEIGHTS)
    if (folder / INDEX).is_file():
        return _read_index(folder / INDEX)
    if pickled := sorted(file.name for file in folder.glob("*.bin")):
        raise InputError(
            f"{folder} has its weights only in {pickled}, a format that can run code "
            "when opened; jft reads safetensors. Convert it where you trust the "
            "file: load it with transformers and torch, then save_pretrained(folder)."
        )
    raise InputError(
        f"{folder} has no weights: neither {WEIGHTS} nor {INDEX}. A model of the Hub "
        "with .bin files alone is not fetched, for they can run code: convert it where "
        "you trust it, with transformers and torch, then save_pretrained(folder). If "
        "the Hub's cache holds a part of the model, connect once."
    )


def _read_index(file: Path) -> dict[str, str]:
    """Read a shard index, whose names must be those of files beside it."""
    weight_map = _read_json(file).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{file} has no weight_map; it is no index of shards.")
    for name in set(map(str, weight_map.values())):
        plain = Path(name).name == name and "\\" not in name
        if not plain or not name.endswith(".safetensors"):
            raise InputError(
                f"{file} names {name!r}; an index may only name .safetensors files "
                "in its own folder. Do not use this checkpoint."
            )
        if not (file.parent / name).is_file():
            raise InputError(
                f"{file} names {name}, which is not there; the download is incomplete."
            )
    return {str(key): str(name) for key, name in weight_map.items()}


def _by_file(files: Mapping[str, str]) -> Iterator[tuple[str, list[str]]]:
    for name in sorted(set(files.values())):
        yield name, [key for key, file in files.items() if file == name]


def _shapes(folder: Path, files: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    """Read the headers of all files."""
    shapes = {}
    for name, keys in _by_file(files):
        with _open(folder / name) as tensors:
            for key in keys:
                shapes[key] = tuple(tensors.get_slice(key).get_shape())
    return shapes


def _check_finite(folder: Path, files: Mapping[str, str]) -> None:
    """Refuse NaN and infinity before anything is allocated."""
    for name, keys in _by_file(files):
        for key in keys:
            with _open(folder / name) as tensors:  # anew, to give its pages back
                tensor = tensors.get_tensor(key)
            if tensor.dtype.kind in "fV" and not _finite(tensor):
                raise InputError(
                    f"{folder / name}: tensor {key} holds NaN or infinity. Fetch it "
                    "again, or take an earlier checkpoint of the training that wrote "
                    "it."
                )


def _check_copies(
    folder: Path, files: Mapping[str, str], copies: Mapping[str, str]
) -> None:
    """Refuse a copy that config.json calls tied and that holds other numbers."""
    for copy, first in copies.items():
        tensors = []
        for key in (copy, first):
            with _open(folder / files[key]) as stored:
                tensors.append(stored.get_tensor(key))
        if not np.array_equal(*tensors):
            raise InputError(
                f"{folder}: {copy} and {first} differ, but config.json says that they "
                "are one. Set tie_word_embeddings to false there to keep both (for "
                "tables of encoder and decoder share_encoder_decoder_embeddings)."
            )


def _finite(tensor: np.ndarray, rows: int = 2**22) -> bool:
    """Whether all values are finite; in pieces, for little memory."""
    flat = tensor.reshape(-1)
    pieces = range(0, flat.size, rows)
    return all(np.isfinite(flat[i : i + rows]).all() for i in pieces)


@contextmanager
def _open(file: Path) -> Iterator[Any]:
    """Open a safetensors file; what is wrong with it becomes an ``InputError``."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as tensors:
            yield tensors
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{file} cannot be read: {error}. It is absent, damaged or incomplete."
        ) from error


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is no JSON: {error}.") from error
    if not isinstance(value, dict):
        raise InputError(f"{file} holds no JSON object.")
    return value
