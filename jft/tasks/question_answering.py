# SPDX-License-Identifier: Apache-2.0
"""A question and a text that holds the answer, word for word, or no answer."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jft.data import AnswerFields, Column, make_answer_fields, read_answers
from jft.evals import ANSWER_METRICS, Rows
from jft.tasks.classification import examples_of
from jft.tasks.task import Table, Task
from jft.tasks.texts import tokenizer_of
from jft.train import span_cross_entropy
from jft.types import Batch, LossFn


def make_fields(
    model: Any,
    *,
    max_length: int,
    stride: int | None = None,
    max_question_length: int | None = None,
) -> AnswerFields:
    """Windows of the text behind the question.

    Args:
      model: whose tokenizer is taken.
      max_length: tokens of the question and a window together.
      stride: tokens that two windows share; None is a quarter of ``max_length``.
      max_question_length: tokens of a question; None is a quarter, at most 64.
    """
    quarter = max_length // 4
    return make_answer_fields(
        tokenizer_of(model),
        max_length=max_length,
        stride=quarter if stride is None else stride,
        max_question_length=max_question_length or min(quarter, 64),
    )


def make_loss(*, mask_padding: bool = True) -> LossFn:
    """Cross-entropy of start and end, ``[B, L, 2]`` against ``[B, 2]``.

    Args:
      mask_padding: False lets padding compete with the tokens, as in transformers'
        models, where a row's loss depends on how far its batch is padded.
    """

    def loss_fn(outputs: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
        return span_cross_entropy(
            outputs,
            batch["targets"],
            attention_mask=batch["attention_mask"] if mask_padding else None,
            loss_mask=batch["loss_mask"],
        )

    return loss_fn


def predict(outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
    """Keep the scores of every token as start and as end, ``[B, L, 2]``."""
    del batch
    return {"spans": outputs}


def predictions(rows: Rows, table: Table) -> list[str]:
    """The best answer over all windows of each example.

    It may be empty where one of the examples is known to have no answer.
    """
    examples, contexts = table.examples, table.examples.column("context")
    known = "answers" in examples.columns
    may_be_empty = known and not all(a["text"] for a in examples.column("answers"))
    windows = np.split(
        np.arange(len(table)), np.flatnonzero(np.diff(table.example_of)) + 1
    )
    answers = []
    for context, these in zip(contexts, windows, strict=True):
        spans = [rows["spans"][i] for i in these]
        tokens = [table[int(i)] for i in these]
        answer = read_answers(
            [span[:, 0] for span in spans],
            [span[:, 1] for span in spans],
            [row["offset_start"] for row in tokens],
            [row["offset_end"] for row in tokens],
            context=context,
            no_answer=may_be_empty,
        )
        answers.append(answer.text)
    return answers


def references(table: Table) -> list[list[str]]:
    """The answers that people gave; none where the text has no answer."""
    return [list(answers["text"]) for answers in examples_of(table).column("answers")]


def write_prediction(answer: str, class_names: Sequence[str]) -> dict[str, Any]:
    """The answer; empty where the text has none."""
    del class_names
    return {"answer": answer}


TASK = Task(
    name="question_answering",
    inputs=(Column("question", "text"), Column("context", "text")),
    target=Column("answers", "answers"),
    head="question_answering",
    make_fields=make_fields,
    make_loss=make_loss,
    train_metrics={},
    predict=predict,
    predictions=predictions,
    references=references,
    metrics=ANSWER_METRICS,
    default_metrics=("f1", "exact_match"),
    write_prediction=write_prediction,
    divergence="span",
    pipeline="question-answering",
)
