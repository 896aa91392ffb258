# SPDX-License-Identifier: Apache-2.0
"""Prompts and prefixes as PEFT keeps them: one tensor, ``prompt_embeddings``.

A prompt's is ``[P, D]``; of an encoder-decoder it may have P more rows, which PEFT does
not read. A prefix's is ``[P, N * 2 * G * K]``: of each of N layers the keys, then the
values. Of an encoder-decoder it is laid out for self-attention and cross-attention in
turn, the second of which PEFT drops: layer i reads the pair ``2 i mod N``, so PEFT's
own prefixes of N layers share pairs where N is even, and jft writes 2 N pairs.

What moved of the base is named without the ``model`` of other methods.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from jft.params.adapters.adapter import (
    Adapter,
    LeavesOf,
    Product,
    Stored,
)
from jft.params.adapters.peft_names import Names, task_type
from jft.params.adapters.prompt import LEAF
from jft.params.adapters.virtual_tokens import VirtualTokens
from jft.params.layout import from_tensor, to_tensor
from jft.types import InputError

PREFIX = "base_model."


def to_peft_prompt(
    adapter: VirtualTokens,
    leaves_of: LeavesOf,
    trained: Mapping[str, Any],
    *,
    saved: Collection[str],
    names: Names,
    task: str,
    base_model: str | None,
    word_scale: float = 1.0,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Say in PEFT's words and tensors what a prompt or a prefix is.

    Args:
      adapter: the method.
      leaves_of: its parameters, module -> leaves.
      trained: those of the base that are kept with it, by path.
      saved: the modules of these.
      names: the model's.
      task: the model's.
      base_model: the name or folder of the base.
      word_scale: what the model multiplies its words with: PEFT puts the prompt in
        behind that, jft before.

    Returns:
      adapter_config.json, and the tensors by name.
    """
    own, rows = adapter.to_rows(leaves_of, task=task, word_scale=word_scale)
    config = {
        "base_model_name_or_path": base_model,
        "inference_mode": True,
        "modules_to_save": sorted(names.modules[path] for path in saved) or None,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": len(rows),
        "peft_type": adapter.peft_type,
        "task_type": task_type(task, needed=True),
        **own,
    }
    tensors = {LEAF: np.ascontiguousarray(rows)}
    for path, leaf in trained.items():
        key = f"{PREFIX}{names.tensors[path]}"
        tensors[key] = to_tensor(path, np.asarray(leaf), names.family)
    return config, tensors


def from_peft_prompt(
    method: type[VirtualTokens],
    config: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    products: Mapping[str, Product],
    names: Names,
    word_scale: float = 1.0,
) -> tuple[Adapter, Stored]:
    """Undo ``to_peft_prompt``.

    Returns:
      The method, and its parameters with those of the base.

    Raises:
      InputError: for a tensor that does not fit.
    """
    if LEAF not in tensors:
        raise InputError(
            f"an adapter of the type {method.peft_type} needs the tensor {LEAF!r}; "
            f"this one holds {sorted(tensors)}."
        )
    trained = {}
    for key in sorted(tensors.keys() - {LEAF}):
        path = names.paths.get(key.removeprefix(PREFIX))
        if path is None:
            raise InputError(
                f"the adapter holds the tensor {key!r}, which is neither {LEAF!r} nor "
                "a parameter of the model."
            )
        trained[path] = from_tensor(path, tensors[key], names.family)
    rows = tensors[LEAF][: config.get("num_virtual_tokens")]
    adapter = method(
        num_virtual_tokens=len(rows), also_train=tuple(map(re.escape, trained))
    )
    own = method.from_rows(rows, config, products, word_scale=word_scale)
    return adapter, Stored(own, {}, trained)
