# SPDX-License-Identifier: Apache-2.0
"""What the rest of the package needs to know about a family of models."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from jft.models.dropout import hashed_key
from jft.types import (
    HIDDEN,
    ApplyFn,
    Batch,
    InputError,
    LayerIndex,
    Params,
    PrefixFn,
    TensorRules,
)

# What a head answers; the keys of every family's ``heads``.
TASKS_OF_HEADS = (
    "base",  # no head: hidden states
    "masked_lm",
    "causal_lm",
    "seq2seq_lm",
    "sequence_classification",
    "token_classification",
    "question_answering",
    "image_classification",
)

Shapes = dict[str, jax.ShapeDtypeStruct]
NOTHING = r"(?!)"  # a regex that matches nothing


def no_rules(task: str) -> tuple[str, ...]:
    """A family whose checkpoints never lack a parameter of the backbone."""
    return ()


def as_it_is(config: Mapping[str, Any], keys: Collection[str]) -> Mapping[str, Any]:
    """A family whose config.json tells all of the model."""
    return config


def no_encoder(config: Any) -> int:
    """A family of one stack of blocks."""
    return 0


def no_limit(config: Any) -> int | None:
    """A family whose positions are computed, so that no text is too long."""
    return None


def no_packing(config: Any) -> tuple[str, ...]:
    """A family whose rows hold one text each."""
    return ()


def text_example(config: Any, task: str) -> Shapes:
    """One text of four tokens."""
    return {"input_ids": jax.ShapeDtypeStruct((1, 4), jnp.int32)}


@dataclass(frozen=True, kw_only=True, eq=False)  # so that it can be a cache's key
class Family:
    """One architecture in Hugging Face layout, as a record of plain functions.

    Its modules are called as ``module(batch, hidden=None, start=0, stop=None,
    deterministic=True)`` and run the stages from boundary ``start`` to boundary
    ``stop``: stage 0 embeds, stage ``i + 1`` is block ``i``, the last is the head.
    ``hidden`` is what a call with ``stop=start`` returned; masks come from ``batch``.

    Attributes:
      model_type: the ``model_type`` of its config.json.
      heads: task -> the transformers class that reads its exports.
      base_prefix: the first key of the backbone in our tree and, but for the task
        ``base``, in the checkpoint; "" where there is none.
      prefix_exceptions: task -> the backbone's prefix in that task's checkpoints,
        where it is another.
      config_from_dict: config.json as a dict -> the family's frozen config.
      make_module: (config, task) -> linen module.
      example_batch: (config, task) -> shapes and dtypes of a batch of one.
      layer_index: config -> (path -> depth); embeddings 0, block i is i + 1, the
        head is ``num_layers(config) + 1``.
      num_layers: config -> number of blocks.
      final_norm: regex of the norm after the last block.
      head_rules: task -> regexes of the parameters that a new head draws.
      optional_rules: task -> regexes of backbone parameters that some checkpoints
        lack, such as BERT's pooler; they are drawn new where absent.
      shared_rules: regexes of parameters that other stages than their own layer's
        use too: tied embeddings, relative positions.
      embedding_rules: regexes of the leaves with one row (or column) a token of the
        vocabulary; they grow with the tokenizer.
      variants: published name -> config.
      settle_config: (config.json, the checkpoint's keys) -> config.json, with what
        only the keys tell, such as whether T5's output layer is tied.
      num_encoder_layers: config -> how many of the blocks, the first ones, are the
        encoder's of an encoder-decoder; 0 for all other models.
      max_positions: config -> the most tokens of a text where positions are rows of a
        table; else None.
      packed_heads: config -> the tasks whose heads read packed rows exactly, see
        `jft.models.packing`; the family may lack some of them.
      column_parallel: regex of the ends of the paths of products whose outputs may be
        spread over devices: queries, keys, values, the wide layer of the MLP.
      row_parallel: the same of those that read them: both outputs of a block.
      special_ids: further fields of config.json that hold the id of a special token ->
        its role, as in ``tokenizer.eos_token``; set in models from scratch.
    """

    model_type: str
    heads: Mapping[str, str]
    base_prefix: str
    config_from_dict: Callable[[Mapping[str, Any]], Any]
    make_module: Callable[[Any, str], Any]
    layer_index: Callable[[Any], LayerIndex]
    num_layers: Callable[[Any], int]
    final_norm: str
    head_rules: Callable[[str], tuple[str, ...]]
    example_batch: Callable[[Any, str], Shapes] = text_example
    prefix_exceptions: Mapping[str, str] = field(default_factory=dict)
    optional_rules: Callable[[str], tuple[str, ...]] = no_rules
    shared_rules: tuple[str, ...] = ()
    embedding_rules: tuple[str, ...] = ()
    variants: Mapping[str, Any] = field(default_factory=dict)
    settle_config: Callable[[Mapping[str, Any], Collection[str]], Mapping[str, Any]] = (
        as_it_is
    )
    num_encoder_layers: Callable[[Any], int] = no_encoder
    max_positions: Callable[[Any], int | None] = no_limit
    packed_heads: Callable[[Any], tuple[str, ...]] = no_packing
    column_parallel: str = NOTHING
    row_parallel: str = NOTHING
    special_ids: Mapping[str, str] = field(default_factory=dict)

    @property
    def tensor_rules(self) -> TensorRules:
        """Which axis of a parameter the devices of the tensor axis may share.

        Those of Megatron-LM, so that a block communicates twice: a column-parallel
        product keeps its part of the outputs, a row-parallel one sums over the parts.
        Tables and output layers are divided by rows of the vocabulary.
        """
        return (
            (rf"(?:.+/)?(?:{self.column_parallel})/(?:kernel|bias)", -1),
            (rf"(?:.+/)?(?:{self.row_parallel})/kernel", -2),
            *((rf"(?=.*/embedding$)(?:{rule})", 0) for rule in self.embedding_rules),
            *((rule, -1) for rule in self.embedding_rules),
        )

    def checkpoint_prefix(self, task: str) -> str:
        """Return the first key of the backbone in the checkpoints of that task."""
        usual = "" if task == "base" else self.base_prefix
        return self.prefix_exceptions.get(task, usual)

    def check_task(self, task: str) -> str:
        """Return the task, or list those that the family has a head for."""
        if task not in self.heads:
            raise InputError(
                f"a {self.model_type} has no head for the task {task!r}; expected one "
                f"of {sorted(self.heads)}."
            )
        return task

    def task_of(self, config: Mapping[str, Any]) -> str:
        """Return the task of the head that a config.json's ``architectures`` names.

        It is ``base`` where none is named, and the only one where there is but one.
        """
        if len(self.heads) == 1:
            return next(iter(self.heads))
        named = (config.get("architectures") or [self.heads["base"]])[0]
        by_class = {name: task for task, name in self.heads.items()}
        if named not in by_class:
            raise InputError(
                f"config.json: architectures names {named!r}, a head that jft has not; "
                f"known for {self.model_type} are {sorted(by_class)}. Choose a head "
                f"with task=…, one of {sorted(self.heads)}."
            )
        return by_class[named]


def make_apply_fn(module: Any) -> ApplyFn:
    """Make the forward of a family's module a function of params, batch and key.

    Returns:
      An ``ApplyFn``: dropout is active exactly when it is given a key. A batch with
      activations is taken up at their boundary.
    """

    def apply_fn(params: Params, batch: Batch, *, key: jax.Array | None) -> Any:
        start, hidden = _reached(batch)
        return _run(module, params, batch, key, hidden=hidden, start=start)

    return apply_fn


def make_prefix_fn(module: Any) -> PrefixFn:
    """Make the stages below a boundary a function of params and batch.

    Returns:
      A ``PrefixFn``; of a batch with activations it runs what is missing. With a key
      it drops out what the whole forward would with that key.
    """

    def prefix_fn(
        params: Params, batch: Batch, *, stop: int, key: jax.Array | None = None
    ) -> Batch:
        start, hidden = _reached(batch)
        if start > stop:
            raise InputError(
                f"the batch was computed up to the boundary {start}, but the layer "
                f"{stop} is open; give batches that were computed no further."
            )
        if start < stop:
            hidden = _run(
                module, params, batch, key, hidden=hidden, start=start, stop=stop
            )
        rest = {k: x for k, x in batch.items() if not k.startswith(HIDDEN)}
        return {**rest, f"{HIDDEN}{stop}": hidden} if stop else batch

    return prefix_fn


def _run(
    module: Any, params: Params, batch: Batch, key: jax.Array | None, **stages: Any
) -> Any:
    return module.apply(
        {"params": params},
        batch,
        deterministic=key is None,
        rngs=None if key is None else {"dropout": hashed_key(key)},
        **stages,
    )


def _reached(batch: Batch) -> tuple[int, Any]:
    """The boundary up to which a batch has been computed, and what came out there."""
    for name, hidden in batch.items():
        if name.startswith(HIDDEN):
            boundary = int(name.removeprefix(HIDDEN))
            return boundary, jax.tree.map(jnp.asarray, hidden)
    return 0, None


def make_layer_index(
    model: str, *, num_layers: int, rules: Sequence[tuple[str, int]]
) -> LayerIndex:
    r"""Make ``path -> depth`` from ordered rules; a path that none matches raises.

    Args:
      model: what to call the model in errors.
      num_layers: number of blocks.
      rules: ``(regex of a whole path, depth)``. A regex with a group takes the block
        from it: the depth is that of block 0, to which the number is added.

    Returns:
      The function. Blocks from ``num_layers`` on belong to no layer.

    >>> rules = [(r"embed/.+", 0), (r"layers/(\d+)/.+", 1), (r"head/.+", 3)]
    >>> make_layer_index("toy", num_layers=2, rules=rules)("layers/1/kernel")
    2
    """
    compiled = [(re.compile(pattern), depth) for pattern, depth in rules]

    def layer_index(path: str) -> int:
        for pattern, depth in compiled:
            if match := pattern.fullmatch(path):
                index = depth + (int(match[1]) if pattern.groups else 0)
                if pattern.groups and index > num_layers:
                    break
                return index
        raise InputError(
            f"parameter {path!r} belongs to no layer of a {model} of {num_layers} "
            f"blocks; known are {[pattern for pattern, _ in rules]}."
        )

    return layer_index
