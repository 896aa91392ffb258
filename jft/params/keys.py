# SPDX-License-Identifier: Apache-2.0
"""The one place that knows how checkpoints of one family name things differently.

``checkpoint_keys`` says what an export calls its tensors; ``find_keys`` knows the
other names under which published checkpoints keep the same tensor.
"""

import re
from collections.abc import Collection, Iterable
from typing import NamedTuple

from jft.models import Family
from jft.params.layout import to_key

# What older checkpoints call it -> what it is called now.
RENAMED = (
    # bert-base-uncased and others that were converted from TensorFlow
    (r"(.*LayerNorm)\.gamma", r"\1.weight"),
    (r"(.*LayerNorm)\.beta", r"\1.bias"),
)

# The same numbers once more -> where they are first. Both sides are keys without the
# backbone's prefix. Not read, unless the first is absent.
TIED = (
    # BERT's masked-word head, and ALBERT's
    (r"cls\.predictions\.decoder\.weight", r"embeddings\.word_embeddings\.weight"),
    (r"cls\.predictions\.decoder\.bias", r"cls\.predictions\.bias"),
    (r"predictions\.decoder\.weight", r"embeddings\.word_embeddings\.weight"),
    (r"predictions\.decoder\.bias", r"predictions\.bias"),
    # RoBERTa's masked-word head
    (r"lm_head\.decoder\.weight", r"embeddings\.word_embeddings\.weight"),
    (r"lm_head\.decoder\.bias", r"lm_head\.bias"),
    # GPT-NeoX with tied words
    (r"(?:embed_out|lm_head)\.weight", r"embed_in\.weight"),
    # ModernBERT's masked-word head
    (r"decoder\.weight", r"embeddings\.tok_embeddings\.weight"),
    # DistilBERT's
    (r"vocab_projector\.weight", r"embeddings\.word_embeddings\.weight"),
    # ELECTRA's generator
    (r"generator_lm_head\.weight", r"embeddings\.word_embeddings\.weight"),
    # decoders whose output layer is the embedding: GPT-2, Llama 3.2, Gemma, Qwen
    (r"lm_head\.weight", r"(?:wte|embed_tokens|shared)\.weight"),
    # encoder-decoders with one table of words, where torch saved every name of it
    (r"(?:encoder|decoder)\.embed_tokens\.weight", r"shared\.weight"),
    (r"lm_head\.weight", r"decoder\.embed_tokens\.weight"),  # Marian with two tables
)

# Buffers that transformers once saved; the forward makes them anew.
BUFFERS = (
    r"(?:.*\.)?embeddings\.(?:position_ids|token_type_ids)",  # BERT, RoBERTa and kin
    r"(?:.*\.)?attn\.(?:masked_)?bias",  # GPT-2's causal mask and its filler
    # the same and the frequencies of GPT-NeoX, such as Pythia's
    r"(?:.*\.)?attention\.(?:(?:masked_)?bias|rotary_emb\.inv_freq)",
    r"(?:.*\.)?self_attn\.rotary_emb\.inv_freq",  # Llama 2 and kin, once a layer
    # t5-small and its size-mates: cross-attention has no distances
    r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",
    r"(?:model\.)?(?:encoder|decoder)\.version",  # BART, as fairseq saved it
    r"(?:model\.)?(?:encoder|decoder)\.embed_positions\.weight",  # Marian's sinusoids
)


class Found(NamedTuple):
    """Which tensor of a checkpoint is which parameter."""

    keys: dict[str, str]  # path -> key; parameters that are absent are not in it
    unused: tuple[str, ...]  # keys that the model has no place for, sorted


def checkpoint_keys(family: Family, task: str, paths: Iterable[str]) -> dict[str, str]:
    """Return ``{path: key}`` as transformers names the tensors of that task's class.

    >>> from jft.models import get_family
    >>> checkpoint_keys(get_family("bert"), "base", ["bert/pooler/dense/bias"])
    {'bert/pooler/dense/bias': 'pooler.dense.bias'}
    """
    prefix = family.checkpoint_prefix(task)
    keys = {}
    for path in paths:
        key, in_backbone = _bare_key(family, task, path)
        keys[path] = f"{prefix}.{key}" if in_backbone and prefix else key
    return keys


def find_keys(
    family: Family, task: str, paths: Iterable[str], keys: Collection[str]
) -> Found:
    """Find each parameter among a checkpoint's keys.

    The checkpoint may be of another task than the model: a bare backbone's keys lack
    the prefix that a model with a head has, and the other way round.

    Args:
      family: the model's.
      task: the model's.
      paths: the model's parameters.
      keys: the checkpoint's tensors.
    """
    places = {_bare_key(family, task, path)[0]: path for path in paths}
    prefixes = {family.base_prefix, *map(family.checkpoint_prefix, family.heads)} - {""}
    bare = {key: _without_prefix(_renamed(key), places, prefixes) for key in keys}
    found = {places[name]: key for key, name in bare.items() if name in places}
    unused = []
    for key, name in bare.items():
        if name in places or any(re.fullmatch(buffer, key) for buffer in BUFFERS):
            continue
        originals = [first for copy, first in TIED if re.fullmatch(copy, name)]
        targets = [p for p in places if any(re.fullmatch(o, p) for o in originals)]
        for target in targets:
            found.setdefault(places[target], key)
        if not targets:
            unused.append(key)
    return Found(found, tuple(sorted(unused)))


def _bare_key(family: Family, task: str, path: str) -> tuple[str, bool]:
    """Return the key without the backbone's prefix, and whether it is of it."""
    key = to_key(path)
    if family.base_prefix:
        bare = key.removeprefix(f"{family.base_prefix}.")
        return bare, bare != key
    return key, not any(re.fullmatch(rule, path) for rule in family.head_rules(task))


def _without_prefix(
    key: str, places: Collection[str], prefixes: Collection[str]
) -> str:
    """Strip the backbone's prefix, unless the whole key is a name of the model's."""
    if key in places:
        return key
    for prefix in prefixes:
        if key.startswith(f"{prefix}."):
            return key.removeprefix(f"{prefix}.")
    return key


def _renamed(key: str) -> str:
    for pattern, replacement in RENAMED:
        key = re.sub(rf"^(?:{pattern})$", replacement, key)
    return key
