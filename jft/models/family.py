# SPDX-License-Identifier: Apache-2.0
"""What the rest of the package needs to know about a family of models."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from jft.models.depth import Depths, Place, make_layer_index
from jft.types import InputError, LayerIndex, TensorRules

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
RulesByTask = Mapping[str, tuple[str, ...]]  # task -> regexes of parameters
Renames = tuple[tuple[str, str], ...]  # (regex, what it becomes or stands for)
NOTHING = r"(?!)"  # a regex that matches nothing


def as_it_is(config: Mapping[str, Any], keys: Collection[str]) -> Mapping[str, Any]:
    """A family whose config.json tells all of the model."""
    return config


def no_limit(config: Any) -> int | None:
    """A family whose positions are computed, so that no text is too long."""
    return None


def limit_of_table(config: Any) -> int | None:
    """A family with a row for each of ``max_position_embeddings`` positions."""
    most: int = config.max_position_embeddings
    return most


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
      depths: which parameters are how deep, but for those of ``final_norm`` and of the
        heads, whose depths these rules tell, see `jft.models.depth`.
      final_norm: regex of the norm behind the last block, where one is no block's.
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
      max_positions: config -> the most tokens of a text where positions are rows of a
        table; else None.
      packed_heads: config -> the tasks whose heads read packed rows exactly, see
        `jft.models.packing`; the family may lack some of them.
      column_parallel: regex of the ends of the paths of products whose outputs may be
        spread over devices: queries, keys, values, the wide layer of the MLP.
      row_parallel: the same of those that read them: both outputs of a block.
      special_ids: further fields of config.json that hold the id of a special token ->
        its role, as in ``tokenizer.eos_token``; set in models from scratch.
      tokenizer_class: as which class of its own transformers reads any tokenizer
        beside such a config.json, cutting texts in its own way; None: as what it is.
      old_keys: regex of a key in older checkpoints -> what it is called now.
      tied_outputs: regex of the key of an output layer that holds the same numbers once
        more -> of the key where they are first. Both are without the backbone's
        prefix. The copy is read only where the first is absent.
      tied_words: the same of other layers.
      buffers: regexes of keys that transformers once saved and the forward makes anew.
      conv1d: regex of the kernels that the checkpoint keeps as torch keeps none: the
        axis of the inputs first, as here.
      torch_names: what of a checkpoint's key becomes what in the name of the module in
        torch's memory, by which PEFT calls it, each replaced in turn.
    """

    model_type: str
    heads: Mapping[str, str]
    base_prefix: str
    config_from_dict: Callable[[Mapping[str, Any]], Any]
    make_module: Callable[[Any, str], Any]
    depths: Depths
    head_rules: RulesByTask
    final_norm: str = NOTHING
    example_batch: Callable[[Any, str], Shapes] = text_example
    prefix_exceptions: Mapping[str, str] = field(default_factory=dict)
    optional_rules: RulesByTask = field(default_factory=dict)
    shared_rules: tuple[str, ...] = ()
    embedding_rules: tuple[str, ...] = ()
    variants: Mapping[str, Any] = field(default_factory=dict)
    settle_config: Callable[[Mapping[str, Any], Collection[str]], Mapping[str, Any]] = (
        as_it_is
    )
    max_positions: Callable[[Any], int | None] = no_limit
    packed_heads: Callable[[Any], tuple[str, ...]] = no_packing
    column_parallel: str = NOTHING
    row_parallel: str = NOTHING
    special_ids: Mapping[str, str] = field(default_factory=dict)
    tokenizer_class: str | None = None
    old_keys: Renames = ()
    tied_outputs: Renames = ()
    tied_words: Renames = ()
    buffers: tuple[str, ...] = ()
    conv1d: str = NOTHING
    torch_names: Renames = ()

    def num_layers(self, config: Any) -> int:
        """Return the number of blocks, or of what else is a stage."""
        num_layers: int = self._any_module(config).num_layers()
        return num_layers

    def num_encoder_layers(self, config: Any) -> int:
        """Return how many of the blocks, the first ones, are an encoder's.

        That is of an encoder-decoder; it is 0 for all other models.
        """
        num_layers: int = self._any_module(config).num_encoder_layers()
        return num_layers

    def _any_module(self, config: Any) -> Any:
        """A module of no parameters yet; all heads have the same blocks below them."""
        return self.make_module(config, next(iter(self.heads)))

    def layer_index(self, config: Any) -> LayerIndex:
        """Make the function ``path -> depth``, the stage that uses the parameter.

        Embeddings are 0, block i is i + 1, the head is ``num_layers(config) + 1``.
        """
        rules = dict.fromkeys(r for rules in self.head_rules.values() for r in rules)
        ends = [] if self.final_norm == NOTHING else [(self.final_norm, Place.END)]
        return make_layer_index(
            self.model_type,
            [*self.depths, *ends, *((rule, Place.HEAD) for rule in rules)],
            num_layers=self.num_layers(config),
            num_encoder_layers=self.num_encoder_layers(config),
        )

    def is_head(self, path: str, task: str) -> bool:
        """Say whether a parameter is of what a new head of that task draws."""
        return any(re.fullmatch(rule, path) for rule in self.head_rules[task])

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
