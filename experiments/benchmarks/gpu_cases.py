# SPDX-License-Identifier: Apache-2.0
"""What `gpu` measures: models with random weights, and batches without padding."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

import jft
from configs import common
from experiments import build, forward, run_config
from jft import optim, partition
from jft.config import apply_overrides, resolve
from jft.models import family_of
from jft.params import adapters
from jft.tasks import get_task
from jft.types import FROZEN, InputError, ParamLabels


class Case(NamedTuple):
    """A model, its task, and the shape of a batch."""

    model: Mapping[str, Any]  # config.json, as far as it differs from the defaults
    task: str
    rows: int
    length: int | None  # tokens; None: images
    blocks: str  # path of the modules that are blocks


CASES: Mapping[str, Case] = {
    "bert-base": Case(
        {"model_type": "bert", "attention_probs_dropout_prob": 0.0},
        "text_classification",
        rows=32,
        length=512,
        blocks="bert/encoder/layer",
    ),
    "vit-b16": Case(
        {"model_type": "vit"},
        "image_classification",
        rows=128,
        length=None,
        blocks="vit/encoder/layer",
    ),
    "llama-1b": Case(  # TinyLlama's sizes: Zhang et al. 2024, arXiv 2401.02385
        {
            "model_type": "llama",
            "vocab_size": 32000,
            "hidden_size": 2048,
            "intermediate_size": 5632,
            "num_hidden_layers": 22,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "max_position_embeddings": 2048,
        },
        "causal_lm",
        rows=4,
        length=2048,
        blocks="model/layers",
    ),
}


class Variant(NamedTuple):
    """How a case is trained."""

    moves: str = "all"  # all, head or lora
    attention: str = "auto"
    remat: str = "all"  # what blocks keep


VARIANTS: Sequence[Variant] = (
    Variant(),
    Variant(attention="xla"),
    Variant(remat="products"),
    Variant(remat="nothing"),
    Variant(moves="head"),
    Variant(moves="lora"),
)


def find_cases(names: Sequence[str]) -> dict[str, Case]:
    """The named ones; all where none is named."""
    if unknown := sorted(set(names) - CASES.keys()):
        raise InputError(
            f"--config names {unknown}; the suite gpu has {sorted(CASES)}."
        )
    return {name: CASES[name] for name in names or CASES}


def make_job(case: Case, variant: Variant, overrides: Mapping[str, Any]) -> build.Job:
    """The parts of a run that its training step needs, without data."""
    config = common.base_config()
    common.like_trainer(config)
    config.data.task = case.task
    config.train.compute_dtype = "bfloat16"
    config.train.remat = [[rf"{case.blocks}/\d+", variant.remat]]
    config.model.attention = variant.attention
    config = run_config.complete(resolve(apply_overrides(config.to_dict(), overrides)))
    key = jax.random.key(config.seed)
    task = get_task(case.task)
    model = jft.init_model(case.model, key=key, task=task.head)
    if variant.moves == "lora":
        # of a model from scratch too only the head moves besides
        rules = adapters.head_rules(model.family, model.task)
        model = jft.adapt(model, adapters.Lora(also_train=rules), key=key)
    model = forward.attend_as_told(config, model, head_shares=1)
    labels = label_params(model, variant.moves)
    return build.Job(
        config=config,
        splits={"train": None},  # nothing is read of it: the batches are made up
        task=task,
        model=model,
        old=None,
        source=None,
        tables={},
        loader=None,
        task_loader=None,
        labels=labels,
        asks=lambda groups: False,
        plan=None,
        tx=optim.make_optimizer(labels, learning_rate=5e-5, clip_norm=1.0),
        key=key,
    )


def label_params(model: jft.Pretrained, moves: str) -> ParamLabels:
    """What moves of the model."""
    head = [(rule, "head") for rule in model.family.head_rules[model.task]]
    rules = [(".*", "all")] if moves == "all" else [*head, (".*", FROZEN)]
    base = adapters.without_adapters(model.params)
    labels = partition.label_params(base, rules)
    if model.adapter is None:
        return labels
    return adapters.label_adapted(model.params, labels, model.adapter)


def make_batch(case: Case, rows: int) -> dict[str, np.ndarray]:
    """A batch drawn at random."""
    config = family_of(case.model).config_from_dict(case.model)
    rng = np.random.default_rng(0)
    if case.length is None:
        shape = (rows, *config.image_size, config.num_channels)
        pixels = rng.standard_normal(shape, np.float32)
        return {"pixel_values": pixels, **targets_of(np.zeros(rows, np.int32))}
    shape = (rows, case.length)
    ids = rng.integers(5, config.vocab_size, shape, np.int32)
    per_token = case.task == "causal_lm"
    targets = np.roll(ids, -1, 1) if per_token else np.zeros(rows, np.int32)
    real = np.ones(shape, np.int32)
    return {"input_ids": ids, "attention_mask": real, **targets_of(targets)}


def targets_of(targets: np.ndarray) -> dict[str, np.ndarray]:
    """Targets that all count."""
    return {"targets": targets, "loss_mask": np.ones(targets.shape, np.float32)}
