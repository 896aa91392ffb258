# SPDX-License-Identifier: Apache-2.0
"""A text in, a text out: translation, summaries."""

from collections.abc import Mapping, Sequence
from typing import Any

from jft.data import Column, make_seq2seq_fields
from jft.evals import TEXT_METRICS
from jft.tasks import language
from jft.tasks.classification import examples_of
from jft.tasks.task import Table, Task
from jft.tasks.texts import tokenizer_of


def make_fields(
    model: Any,
    *,
    max_length: int,
    max_target_length: int | None = None,
    prefix: str = "",
    source_language: str | None = None,
    target_language: str | None = None,
) -> Any:
    """Tokens of both texts.

    Args:
      model: whose tokenizer and first token of an answer are taken.
      max_length: tokens of the text that is read.
      max_target_length: tokens of the text that is written; None is ``max_length``.
      prefix: put before each text, such as T5's ``"summarize: "``.
      source_language: of a tokenizer that knows several, by its own code.
      target_language: likewise.
    """
    return make_seq2seq_fields(
        tokenizer_of(model),
        max_length=max_length,
        max_target_length=max_target_length or max_length,
        decoder_start_token_id=start_token(model),
        prefix=prefix,
        src_lang=source_language,
        tgt_lang=target_language,
    )


def start_token(model: Any) -> int | None:
    """What decoder inputs start with; None: the text's own last token, as in mBART."""
    if model.family.model_type == "mbart":
        return None
    return model.module.config.decoder_start_token_id


def predictions(rows: Mapping[str, Any], table: Table) -> list[str]:
    """The texts that the model wrote, which whoever evaluates adds to the rows."""
    del table
    return list(rows["texts"])


def references(table: Table) -> list[str]:
    """The texts that people wrote."""
    return list(examples_of(table).column("target_text"))


def write_prediction(text: str, class_names: Sequence[str]) -> dict[str, Any]:
    """The text."""
    del class_names
    return {"written": text}


TASK = Task(
    name="sequence_to_sequence",
    inputs=(Column("text", "text"),),
    target=Column("target_text", "text"),
    head="seq2seq_lm",
    make_fields=make_fields,
    make_loss=language.make_loss,
    train_metrics={"token_accuracy": language.token_accuracy},
    predict=lambda outputs, batch: {},
    predictions=predictions,
    references=references,
    metrics=TEXT_METRICS,
    default_metrics=("bleu", "chrf"),
    write_prediction=write_prediction,
    pipeline="text2text-generation",
    divergence="softmax",
    writes=True,
    sums_tokens=True,
)
