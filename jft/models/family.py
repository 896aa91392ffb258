# SPDX-License-Identifier: Apache-2.0
"""What the rest of the package needs to know about a family of models."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax

from jft.types import ApplyFn, Batch, LayerIndex, Params


@dataclass(frozen=True, kw_only=True)
class Family:
    """One architecture in Hugging Face layout, as a record of plain functions.

    Attributes:
      model_type: the ``model_type`` of its config.json.
      hf_architecture: the transformers class that reads its exports.
      base_prefix: the first key of the backbone; checkpoints of the bare backbone
        leave it out.
      input_field: the batch field that the module reads.
      config_from_dict: config.json as a dict -> the family's frozen config.
      make_module: config -> linen module.
      example_inputs: config -> the shape and dtype of a batch of one.
      layer_index: config -> (path -> depth); embeddings 0, block i is i+1, the
        head is ``num_layers(config) + 1``.
      num_layers: config -> number of blocks.
      final_norm: regex of the norm after the last block.
      head_rules: regexes of the parameters that belong to the task, not the backbone.
    """

    model_type: str
    hf_architecture: str
    base_prefix: str
    input_field: str
    config_from_dict: Callable[[Mapping[str, Any]], Any]
    make_module: Callable[[Any], Any]
    example_inputs: Callable[[Any], jax.ShapeDtypeStruct]
    layer_index: Callable[[Any], LayerIndex]
    num_layers: Callable[[Any], int]
    final_norm: str
    head_rules: tuple[str, ...]


def make_apply_fn(module: Any, *, input_field: str) -> ApplyFn:
    """Make the forward of a linen module a function of params, batch and key.

    Args:
      module: a linen module called as ``module(inputs, deterministic=...)``.
      input_field: the batch field that it reads.

    Returns:
      An ``ApplyFn``: dropout is active exactly when it is given a key.
    """

    def apply_fn(params: Params, batch: Batch, *, key: jax.Array | None) -> Any:
        return module.apply(
            {"params": params},
            batch[input_field],
            deterministic=key is None,
            rngs=None if key is None else {"dropout": key},
        )

    return apply_fn
