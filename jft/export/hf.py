# SPDX-License-Identifier: Apache-2.0
"""Write a Hugging Face model folder, file for file as transformers 5 writes it."""

import json
import re
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jft.evals.decoding import CHOOSING, GENERATING
from jft.models import Family, family_of
from jft.params import abstract_params, checkpoint_keys, to_tensor
from jft.params.pretrained import INDEX, WEIGHTS
from jft.paths import flatten
from jft.types import InputError, Params

UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}

SPECIAL_TOKENS = (
    "bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id",
    "forced_bos_token_id", "forced_eos_token_id",
)  # fmt: skip
# what old config.json files say of generation; it belongs to generation_config.json
GENERATION_FIELDS = CHOOSING - set(SPECIAL_TOKENS)

# files of an earlier export that would not belong to a new one
STALE = re.compile(
    r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?|generation_config\.json"
)
Tensors = dict[str, np.ndarray]


def save_pretrained(
    directory: str | Path,
    params: Params,
    *,
    config: Mapping[str, Any],
    task: str | None = None,
    processor: Any | None = None,
    generation_config: Mapping[str, Any] | None = None,
    model_card: str | None = None,
    max_shard_size: str = "5GB",
) -> list[Path]:
    """Write the folder that ``transformers`` and ``jft.load`` read.

    Files are written beside their places and moved there whole, config.json last, those
    of a tokenizer before them by transformers; weights and generation_config.json of an
    earlier export that would no longer belong are removed.

    Args:
      directory: made if absent; other files in it stay.
      params: all of the model's parameters, at the paths of its family.
      config: config.json as a dict; must describe ``params``.
      task: what the head answers; None is the head that ``architectures`` names.
      processor: a transformers tokenizer, whose files are written, or a mapping, which
        becomes preprocessor_config.json.
      generation_config: becomes generation_config.json for heads that generate; None
        makes one of the config's special tokens.
      model_card: becomes README.md.
      max_shard_size: the largest weight file, as in "200MB" (10^6 bytes each); a
        single larger tensor gets a file of its own.

    Returns:
      The files written.

    Raises:
      InputError: if ``params`` are not the config's parameters, hold NaN or infinity,
        or mix dtypes; or if the directory cannot be written.
    """
    family = family_of(config)
    task = family.task_of(config) if task is None else family.check_task(task)
    host = {path: np.asarray(x) for path, x in flatten(jax.device_get(params)).items()}
    _check(host, config, family=family, task=task)
    keys = checkpoint_keys(family, task, host)
    tensors = {
        keys[path]: to_tensor(path, x, family) for path, x in sorted(host.items())
    }
    shards = _shard(tensors, parse_size(max_shard_size))
    texts = {}
    if len(shards) > 1:
        texts[INDEX] = _json(_index(shards))
    if isinstance(processor, Mapping):
        texts["preprocessor_config.json"] = _json(processor)
    if task in GENERATING:
        generation = generation_config or default_generation_config(config)
        texts["generation_config.json"] = _json(_final_generation(generation, config))
    if model_card is not None:
        texts["README.md"] = model_card
    dtype = str(next(iter(host.values())).dtype)
    final = _final_config(config, architecture=family.heads[task], dtype=dtype)
    texts["config.json"] = _json(final)
    try:
        written = _save_tokenizer(Path(directory), processor)
        return [*written, *_write(Path(directory), shards, texts)]
    except OSError as error:
        raise InputError(
            f"the export {directory} cannot be written: {error}."
        ) from error


def _save_tokenizer(directory: Path, processor: Any | None) -> list[Path]:
    if processor is None or isinstance(processor, Mapping):
        return []
    directory.mkdir(parents=True, exist_ok=True)
    return [Path(name) for name in processor.save_pretrained(directory)]


def _check(
    host: Mapping[str, np.ndarray],
    config: Mapping[str, Any],
    *,
    family: Family,
    task: str,
) -> None:
    """Refuse to write a folder that would not load, or load to nonsense."""
    model_config = family.config_from_dict(config)
    template = flatten(abstract_params(family, model_config, task=task))
    expected = {path: tuple(leaf.shape) for path, leaf in template.items()}
    given = {path: x.shape for path, x in host.items()}
    if given != expected:
        raise InputError(
            "the parameters are not those of the config. Only in the parameters: "
            f"{_differences(given, expected)}. Only in the config's model: "
            f"{_differences(expected, given)}."
        )
    if bad := sorted(path for path, x in host.items() if not np.isfinite(x).all()):
        raise InputError(
            f"not exported: these parameters hold NaN or infinity: {bad}. Take an "
            "earlier checkpoint, or train again with a lower learning rate."
        )
    if len(dtypes := sorted({str(x.dtype) for x in host.values()})) > 1:
        raise InputError(f"the parameters mix the dtypes {dtypes}; cast them to one.")


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    paths = sorted(path for path in one if other.get(path) != one[path])
    return [f"{path} {list(one[path])}" for path in paths[:20]]


def default_generation_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The special tokens of a config.json, as transformers derives them.

    >>> default_generation_config({"eos_token_id": 2, "vocab_size": 9})
    {'_from_model_config': True, 'eos_token_id': 2}
    """
    kept = {k: config[k] for k in SPECIAL_TOKENS if config.get(k) is not None}
    return {"_from_model_config": True, **kept}


def _final_generation(
    generation: Mapping[str, Any], config: Mapping[str, Any]
) -> dict[str, Any]:
    moved = {k: config[k] for k in GENERATION_FIELDS if config.get(k) is not None}
    return {**moved, **generation, "transformers_version": version("transformers")}


def _final_config(
    config: Mapping[str, Any], *, architecture: str, dtype: str
) -> dict[str, Any]:
    # torch_dtype is the name of before transformers 5, _name_or_path a local path;
    # transformers refuses to save a config.json that says how to generate
    dropped = ("_name_or_path", "torch_dtype", *GENERATION_FIELDS)
    return {
        **{key: value for key, value in config.items() if key not in dropped},
        "architectures": [architecture],
        "dtype": dtype,
        "transformers_version": version("transformers"),
    }


def parse_size(text: str) -> int:
    """Return the bytes that a text such as "5GB" means.

    >>> parse_size("200MB")
    200000000
    """
    match = re.fullmatch(r"(\d+)(KB|MB|GB)", text)
    if not match or not int(match[1]):
        raise InputError(
            f"max_shard_size is {text!r}; expected a number with KB, MB or GB, as "
            'in "5GB".'
        )
    return int(match[1]) * UNITS[match[2]]


def _shard(tensors: Tensors, max_bytes: int) -> dict[str, Tensors]:
    """Fill files greedily in the order of the keys: ``{file name: tensors}``."""
    groups: list[Tensors] = [{}]
    filled = 0
    for key, tensor in tensors.items():
        if groups[-1] and filled + tensor.nbytes > max_bytes:
            groups.append({})
            filled = 0
        groups[-1][key] = tensor
        filled += tensor.nbytes
    if len(groups) == 1:
        return {WEIGHTS: tensors}
    return {
        f"model-{i:05d}-of-{len(groups):05d}.safetensors": group
        for i, group in enumerate(groups, start=1)
    }


def _index(shards: Mapping[str, Tensors]) -> dict[str, Any]:
    tensors = [x for group in shards.values() for x in group.values()]
    return {
        "metadata": {
            "total_parameters": sum(x.size for x in tensors),
            "total_size": sum(x.nbytes for x in tensors),
        },
        "weight_map": {key: name for name, group in shards.items() for key in group},
    }


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


def _write(
    directory: Path, shards: Mapping[str, Tensors], texts: Mapping[str, str]
) -> list[Path]:
    from safetensors.numpy import save_file

    directory.mkdir(parents=True, exist_ok=True)
    # a file half written never has a name that anybody reads
    for name, tensors in shards.items():
        save_file(tensors, directory / f"{name}.tmp", metadata={"format": "pt"})
    for name, text in texts.items():
        (directory / f"{name}.tmp").write_text(text, encoding="utf-8")
    for name in shards:  # safetensors writes files that only their owner may read
        shutil.copymode(directory / "config.json.tmp", directory / f"{name}.tmp")
    names = [*shards, *texts]
    for stale in directory.iterdir():  # first: no weights are better than old ones
        if STALE.fullmatch(stale.name) and stale.name not in names:
            stale.unlink()
    for name in names:
        (directory / f"{name}.tmp").replace(directory / name)
    return [directory / name for name in names]
