# SPDX-License-Identifier: Apache-2.0
"""jft: pure-functional fine-tuning of Hugging Face checkpoints in JAX and Flax.

One folder a stage, in the order data flows:

    config → data → models → params → partition → optim → train → checkpoint → evals
    → tasks → export

`load`, `init_model` and `save`, `adapt` and its kin, which join stages, are here;
everything else is in its stage, ``jft.partition.describe`` for example. Importing jft
imports no heavy package but jax, flax and optax.
"""

from jft import (
    checkpoint,
    config,
    data,
    evals,
    export,
    models,
    optim,
    params,
    partition,
    paths,
    tasks,
    train,
    types,
)
from jft.adapted import adapt, check_foldable, fold, quantize
from jft.adapter_folder import adapter_head, load_adapter, save_adapter
from jft.adapter_set import AdapterSet, gather
from jft.models.classes import with_classes
from jft.pretrained import Pretrained, init_model, load, save

__all__ = [
    "AdapterSet",
    "Pretrained",
    "adapt",
    "adapter_head",
    "check_foldable",
    "checkpoint",
    "config",
    "data",
    "evals",
    "export",
    "fold",
    "gather",
    "init_model",
    "load",
    "load_adapter",
    "models",
    "optim",
    "params",
    "partition",
    "paths",
    "quantize",
    "save",
    "save_adapter",
    "tasks",
    "train",
    "types",
    "with_classes",
]
