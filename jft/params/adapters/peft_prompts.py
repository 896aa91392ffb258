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

from jft.params.adapters.adapter import Adapter, Leaves, LeavesOf, Product, wide
from jft.params.adapters.peft_names import Names, task_type
from jft.params.adapters.peft_tensors import Stored
from jft.params.adapters.prefix import PrefixTuning, prefix_places
from jft.params.adapters.prompt import LEAF, PromptTuning
from jft.params.layout import from_tensor, to_tensor
from jft.types import InputError

PREFIX = "base_model."
METHODS: Mapping[str, type[PromptTuning | PrefixTuning]] = {
    method.peft_type: method for method in (PromptTuning, PrefixTuning)
}

# what tensors tell, or what a loaded adapter does not compute with
_NEUTRAL = {
    "auto_mapping", "base_model_name_or_path", "encoder_hidden_size", "inference_mode",
    "init_weights", "modules_to_save", "num_attention_heads", "num_layers",
    "num_transformer_submodules", "num_virtual_tokens", "peft_type", "peft_version",
    "prefix_projection", "prompt_tuning_init", "prompt_tuning_init_text", "revision",
    "task_type", "token_dim", "tokenizer_kwargs", "tokenizer_name_or_path",
}  # fmt: skip


def to_peft_prompt(
    adapter: PromptTuning | PrefixTuning,
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
    if isinstance(adapter, PromptTuning):
        (leaves,) = leaves_of.values()
        rows = wide(leaves[LEAF]) * word_scale
        own: dict[str, Any] = {
            "prompt_tuning_init": "RANDOM",
            "token_dim": rows.shape[1],
        }
    else:
        two_texts = task == "seq2seq_lm"
        rows, (heads, each) = _join(leaves_of, two_texts=two_texts)
        own = {
            "encoder_hidden_size": heads * each,
            "num_attention_heads": heads,
            "num_layers": len(leaves_of) * (1 + two_texts),
            "prefix_projection": False,
            "token_dim": heads * each,
        }
    config = {
        **own,
        "base_model_name_or_path": base_model,
        "inference_mode": True,
        "modules_to_save": sorted(names.modules[path] for path in saved) or None,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": len(rows),
        "peft_type": adapter.peft_type,
        "task_type": task_type(task, needed=True),
    }
    if isinstance(adapter, PrefixTuning) and task == "seq2seq_lm":
        # what alone puts a prefix into a decoder; a prompt needs it not, and PEFT 0.21
        # asks a model of that type for what transformers 5.23 has renamed
        config |= {"num_transformer_submodules": 2, "task_type": "SEQ_2_SEQ_LM"}
    tensors = {LEAF: np.ascontiguousarray(rows)}
    for path, leaf in trained.items():
        key = f"{PREFIX}{names.tensors[path]}"
        tensors[key] = to_tensor(path, np.asarray(leaf), names.family)
    return config, tensors


def from_peft_prompt(
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
      InputError: for an option that jft has not, or a tensor that does not fit.
    """
    kind = config["peft_type"]
    unknown = {
        name: value
        for name, value in config.items()
        if name not in _NEUTRAL and value not in (None, False, [], {})
    }
    if unknown:
        raise InputError(
            f"adapter_config.json sets {unknown}, which jft has not; it would give "
            "other answers than PEFT. Train it without."
        )
    if LEAF not in tensors:
        raise InputError(
            f"an adapter of the type {kind} needs the tensor {LEAF!r}; this one holds "
            f"{sorted(tensors)}."
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
    method = METHODS[kind]
    adapter = method(
        num_virtual_tokens=len(rows), also_train=tuple(map(re.escape, trained))
    )
    if isinstance(adapter, PrefixTuning):
        two_texts = config.get("num_transformer_submodules") == 2
        own = _split(rows, products, two_texts=two_texts)
        return adapter, Stored(own, {}, trained)
    place = next(p for p, x in products.items() if x.kind in adapter.kinds)
    own = {place: {LEAF: rows / np.float32(word_scale)}}
    return adapter, Stored(own, {}, trained)


def _join(
    leaves_of: LeavesOf, *, two_texts: bool
) -> tuple[np.ndarray, tuple[int, int]]:
    """One tensor of all layers ``[P, N * 2 * G * K]``, and ``(G, K)``."""
    places = sorted(leaves_of, key=_by_number)
    keys, values = (
        np.stack([wide(leaves_of[place][name]) for place in places], axis=1)
        for name in ("prefix_key", "prefix_value")
    )
    unread = [np.zeros_like(keys)] * 2 if two_texts else []
    joined = np.stack([keys, values, *unread], axis=2)
    return joined.reshape(len(joined), -1), keys.shape[2:]


def _split(
    rows: np.ndarray, products: Mapping[str, Product], *, two_texts: bool
) -> dict[str, Leaves]:
    """Each layer's keys and values."""
    places = sorted(prefix_places(products), key=_by_number)
    heads, each = products[places[0]].shape
    expected = len(places) * 2 * heads * each
    if rows.shape[1] not in (expected, expected * (1 + two_texts)):
        raise InputError(
            f"the adapter is of another base: its prefix has {rows.shape[1]} numbers a "
            f"position, and the model's {len(places)} layers of {heads} heads of "
            f"{each} have {expected}. Load the base that it names."
        )
    parts = rows.reshape(len(rows), -1, 2, heads, each)
    pairs = [i * (1 + two_texts) % parts.shape[1] for i in range(len(places))]
    return {
        place: {"prefix_key": parts[:, i, 0], "prefix_value": parts[:, i, 1]}
        for i, place in zip(pairs, places, strict=True)
    }


def _by_number(path: str) -> list[tuple[int, str]]:
    """Sorts block 10 behind block 9."""
    return [(int(x), "") if x.isdecimal() else (-1, x) for x in path.split("/")]
