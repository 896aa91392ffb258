# SPDX-License-Identifier: Apache-2.0
"""Pairs of texts whose embeddings shall be near each other, or far apart.

An embedding is the mean of the last hidden states over the real tokens, scaled to
length 1, as sentence-transformers does it (Reimers and Gurevych 2019, arXiv
1908.10084).
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jft.data import Column, make_sentence_pair_fields
from jft.evals import EMBEDDING_METRICS
from jft.models.pooling import mean_pool, to_unit_length
from jft.tasks import classification, regression
from jft.tasks.task import Task
from jft.tasks.texts import tokenizer_of
from jft.train import cosine_regression, in_batch_contrastive
from jft.types import ApplyFn, Batch, InputError, LossFn, Params

PAIR = "pair_"  # before the names of the second text's fields
OBJECTIVES = ("cosine", "in_batch")


def make_fields(model: Any, *, max_length: int) -> Any:
    """Tokens of both texts, each by itself."""
    return make_sentence_pair_fields(tokenizer_of(model), max_length=max_length)


def make_apply(apply_fn: ApplyFn) -> ApplyFn:
    """Embed both texts of every pair: ``{"first": [B, D], "second": [B, D]}``."""

    def embed_both(params: Params, batch: Batch, *, key: jax.Array | None) -> Any:
        keys = (None, None) if key is None else jax.random.split(key)
        first = {k: x for k, x in batch.items() if not k.startswith(PAIR)}
        second = {k.removeprefix(PAIR): x for k, x in batch.items() if PAIR in k}
        return {
            name: embed(apply_fn, params, texts, key=k)
            for name, texts, k in zip(
                ("first", "second"), (first, second), keys, strict=True
            )
        }

    return embed_both


def embed(
    apply_fn: ApplyFn, params: Params, batch: Batch, *, key: jax.Array | None = None
) -> jax.Array:
    """Embeddings ``[B, D]`` of length 1."""
    hidden = apply_fn(params, batch, key=key)["last_hidden_state"]
    return to_unit_length(mean_pool(hidden, batch["attention_mask"]))


def make_loss(*, objective: str = "cosine", scale: float = 20.0) -> LossFn:
    """How near a pair should be.

    Args:
      objective: ``"cosine"``, squared error of the cosine against the target from -1
        to 1; or ``"in_batch"``, where each first text has to find its second one among
        those of the batch.
      scale: of the cosines of ``"in_batch"``.

    Raises:
      InputError: for an unknown objective.
    """
    if objective not in OBJECTIVES:
        raise InputError(
            f"the objective is {objective!r}; expected one of {list(OBJECTIVES)}."
        )

    def loss_fn(outputs: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
        first, second = outputs["first"], outputs["second"]
        if objective == "in_batch":
            return in_batch_contrastive(
                first, second, loss_mask=batch["loss_mask"], scale=scale
            )
        return cosine_regression(
            first, second, batch["targets"], loss_mask=batch["loss_mask"]
        )

    return loss_fn


def predict(outputs: Any, batch: Batch) -> dict[str, jax.Array]:
    """Keep the cosine of each pair, ``[B]``."""
    del batch
    return {"values": (outputs["first"] * outputs["second"]).sum(axis=-1)}


def write_prediction(
    cosine: np.floating[Any], class_names: Sequence[str]
) -> dict[str, Any]:
    """The cosine of the two embeddings."""
    del class_names
    return {"similarity": round(float(cosine), 6)}


TASK = Task(
    name="sentence_similarity",
    inputs=(Column("text", "text"), Column("text_pair", "text")),
    target=Column("targets", "number"),
    head="base",
    make_fields=make_fields,
    make_loss=make_loss,
    train_metrics={},
    predict=predict,
    predictions=regression.predictions,
    references=classification.references,
    metrics=EMBEDDING_METRICS,
    default_metrics=("spearman", "pearson"),
    write_prediction=write_prediction,
    pipeline="sentence-similarity",
    make_apply=make_apply,
    plot=regression.plot,
    plot_name="similarities.png",
)
