# SPDX-License-Identifier: Apache-2.0
"""Read a Hugging Face folder: config, processor config, and weights leaf by leaf.

Only safetensors are read: pickled weights (.bin) can run code when opened.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jft.params.layout import from_tensor, to_key
from jft.paths import flatten, unflatten
from jft.types import InputError, Params

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class Unread:
    """A tensor of the checkpoint that the model has no place for; a tree leaf."""

    shape: tuple[int, ...]


def read_config(folder: str | Path) -> dict[str, Any]:
    """Read ``config.json``.

    Raises:
      InputError: if the folder or the file is absent, or it holds no JSON object.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(
            f"{str(folder)!r} is no folder; give the path of a Hugging Face model "
            "folder (config.json and model.safetensors). Names of the Hub are not "
            "looked up: download the model first."
        )
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{folder} has no config.json; it is no Hugging Face model folder."
        )
    return _read_json(folder / "config.json")


def read_processor_config(folder: str | Path) -> dict[str, Any] | None:
    """Read ``preprocessor_config.json``; None where the folder has none."""
    file = Path(folder) / "preprocessor_config.json"
    return _read_json(file) if file.is_file() else None


def load_pretrained(
    folder: str | Path, abstract_params: Params, *, base_prefix: str = ""
) -> Params:
    """Read the weights of a folder into our names and axes.

    Shapes are the checkpoint's, to be compared by ``merge``; dtypes are cast to
    ``abstract_params``'s. Files are memory-mapped and read one leaf at a time.

    Args:
      folder: holds ``model.safetensors``, or shards and their index.
      abstract_params: the model's parameters, as shapes or arrays.
      base_prefix: first key of the backbone; a checkpoint in which no key starts
        with it is one of the bare backbone, and gets it.

    Returns:
      Nested dicts: numpy arrays at the model's paths that the checkpoint has, and
      ``Unread`` for tensors that the model has no place for.

    Raises:
      InputError: names the file or tensor that is absent, damaged or not finite.
    """
    folder = Path(folder)
    files = _weight_map(folder)
    prefix = _missing_prefix(files, base_prefix)
    leaves = flatten(abstract_params)
    paths = {to_key(path): path for path in leaves}
    found: dict[str, Any] = {}
    for name in sorted(set(files.values())):
        with _open(folder / name) as tensors:
            for key in (key for key, file in files.items() if file == name):
                path = paths.get(prefix + key)
                if path is None:
                    shape = tuple(tensors.get_slice(key).get_shape())
                    found[(prefix + key).replace(".", "/")] = Unread(shape)
                else:
                    tensor = from_tensor(path, _read(tensors, key, folder / name))
                    found[path] = tensor.astype(leaves[path].dtype)
    return unflatten(dict(sorted(found.items())))


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
    raise InputError(f"{folder} has neither {WEIGHTS} nor {INDEX}.")


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


def _read(tensors: Any, key: str, file: Path) -> np.ndarray:
    tensor: np.ndarray = tensors.get_tensor(key)
    if not np.isfinite(tensor).all():
        raise InputError(f"{file}: tensor {key} holds NaN or infinity.")
    return tensor


def _missing_prefix(files: Mapping[str, str], base_prefix: str) -> str:
    start = f"{base_prefix}."
    return start if base_prefix and not any(k.startswith(start) for k in files) else ""


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is no JSON: {error}.") from error
    if not isinstance(value, dict):
        raise InputError(f"{file} holds no JSON object.")
    return value
