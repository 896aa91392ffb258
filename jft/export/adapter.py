# SPDX-License-Identifier: Apache-2.0
"""Write the folder of an adapter, as PEFT's ``save_pretrained`` does."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jft.models import Family
from jft.params import adapters
from jft.params.adapters.peft_folder import BASE_DIGEST, CONFIG, HEAD, WEIGHTS
from jft.params.init import matches_any
from jft.params.quantised import flatten_whole, is_quantised
from jft.types import InputError, Params


def write_adapter(
    directory: str | Path,
    params: Params,
    *,
    adapter: adapters.Adapter,
    family: Family,
    task: str,
    head: Mapping[str, Any],
    base_model: str | None = None,
    model_card: str | None = None,
    word_scale: float = 1.0,
) -> list[Path]:
    """Write an adapter with what moved beside it, such as the head.

    Beside the tensors stand the digest of the base, by which another is told, and what
    to load the base with.

    Args:
      directory: made if absent; other files in it stay.
      params: the model's, with the subtree ``adapters``.
      adapter: the method.
      family: the model's.
      task: the model's.
      head: options of ``jft.load`` that give the base this head.
      base_model: the name or folder of the base.
      model_card: becomes README.md.
      word_scale: what the model multiplies its words with.

    Returns:
      The files written: adapter_config.json, adapter_model.safetensors, and the card.

    Raises:
      InputError: for numbers that are not finite, or a directory that cannot be
        written.
    """
    host = jax.device_get(params)
    base = adapters.without_adapters(host)
    flat = flatten_whole(base)
    names = adapters.make_names(family, task, flat)
    leaves_of = adapters.adapters_of(host)
    saved = _saved_modules(adapter, flat, head=adapters.head_rules(family, task))
    norms = {x for x in adapters.norms_of(flat) if not _is_in(f"{x}/scale", saved)}
    also = adapter.also_train or ()
    trained = {
        path: leaf
        for path, leaf in flat.items()
        if _is_in(path, saved)
        or matches_any(also, path)
        or adapter.moves(path, leaves_of, norms)
        if not is_quantised(leaf)  # it has not moved, whatever else of its module has
    }
    options: dict[str, Any] = {
        "saved": saved,
        "names": names,
        "task": task,
        "base_model": base_model,
    }
    if isinstance(adapter, adapters.VirtualTokens):
        config, tensors = adapters.to_peft_prompt(
            adapter, leaves_of, trained, word_scale=word_scale, **options
        )
    else:
        tuned = norms if adapter.tunes_norms else set()
        adapted = {**leaves_of, **dict.fromkeys(tuned)}
        config = adapters.to_peft_config(adapter, adapted=adapted, **options)
        shared = adapters.shared_of(host)
        tensors = adapters.to_tensors(
            adapter, leaves_of, shared, trained, names, tuned=tuned
        )
    if bad := sorted(key for key, x in tensors.items() if not np.isfinite(x).all()):
        raise InputError(
            f"not exported: these tensors hold NaN or infinity: {bad}. Take an earlier "
            "checkpoint, or train again with a lower learning rate."
        )
    digest = adapters.make_base_digest(flat)(
        {*trained, *adapters.head_paths(family, task, flat)}
    )
    notes = {"format": "pt", HEAD: json.dumps(head)}
    notes |= {} if digest is None else {BASE_DIGEST: digest}
    texts = {CONFIG: json.dumps(config, indent=2, sort_keys=True)}
    if model_card is not None:
        texts["README.md"] = model_card
    try:
        return _write(Path(directory), tensors, texts, notes)
    except OSError as error:
        raise InputError(
            f"the adapter {directory} cannot be written: {error}."
        ) from error


def _saved_modules(
    adapter: adapters.Adapter, flat: dict[str, Any], *, head: tuple[str, ...]
) -> set[str]:
    """The modules of the base that are kept whole; a head of several is one.

    PEFT wraps a classifier in whole, whatever is inside, and any other module. In a
    format that PEFT has not, what moved of others stands alone.
    """
    moved = [path for path in flat if matches_any(adapter.also_train or (), path)]
    if adapter.peft_type.startswith("JFT_"):
        moved = [path for path in moved if matches_any(head, path)]
    return {
        path.partition("/")[0] if matches_any(head, path) else path.rpartition("/")[0]
        for path in moved
    }


def _is_in(path: str, modules: set[str]) -> bool:
    return any(path.startswith(f"{module}/") for module in modules)


def _write(
    directory: Path,
    tensors: dict[str, np.ndarray],
    texts: dict[str, str],
    notes: dict[str, str],
) -> list[Path]:
    from safetensors.numpy import save_file

    directory.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (directory / f"{name}.tmp").write_text(text, encoding="utf-8")
    weights = directory / f"{WEIGHTS}.tmp"
    save_file(tensors, weights, metadata=notes)
    shutil.copymode(directory / f"{CONFIG}.tmp", weights)  # else its owner's alone
    names = [WEIGHTS, *texts]
    for name in names:  # a file half written never has a name that anybody reads
        (directory / f"{name}.tmp").replace(directory / name)
    return [directory / name for name in names]
