# SPDX-License-Identifier: Apache-2.0
"""The model card: README.md with the YAML head that the Hub reads."""

import json
from collections.abc import Mapping
from typing import Any

from jft.types import InputError

# what the Hub calls a task -> how the card says what the model is for
PIPELINES: Mapping[str, str] = {
    "image-classification": (
        "It sorts images like those of its training data into the classes of "
        "`config.json`.\nPrepare images with `preprocessor_config.json`; on other "
        "kinds of images its answers\nmean nothing."
    ),
    "text-classification": (
        "It sorts texts like those of its training data into the classes of "
        "`config.json`.\nPrepare texts with the tokenizer in this folder; on other "
        "kinds of texts or in\nother languages its answers mean nothing, and it has "
        "whatever bias its data has."
    ),
    "token-classification": (
        "It marks words of texts like those of its training data with the tags of "
        "`config.json`.\nPrepare words with the tokenizer in this folder; the first "
        "piece of a word carries its\ntag. On other kinds of texts its answers mean "
        "nothing."
    ),
    "question-answering": (
        "It marks the answer to a question in a text like those of its training data, "
        "word for\nword. It knows nothing but that text, and says nothing of whether "
        "the text is right."
    ),
    "sentence-similarity": (
        "It gives texts embeddings that are near each other where they mean alike, as "
        "its\ntraining data has it: the mean of the last hidden states over the "
        "tokens, scaled to\nlength 1."
    ),
    "fill-mask": (
        "It guesses hidden words of texts like those of its training data. It is meant "
        "to be\nfine-tuned on a task with such texts, more than to be used as it is."
    ),
    "text-generation": (
        "It goes on from texts like those of its training data. What it writes may be "
        "wrong or\nharmful, and repeats whatever bias its data has; have people read "
        "it."
    ),
    "text2text-generation": (
        "It writes a text for a text, as its training data has them. What it writes "
        "may be wrong\nor harmful, and repeats whatever bias its data has; have people "
        "read it."
    ),
}


def model_card(
    name: str,
    metrics: Mapping[str, float],
    *,
    pipeline: str,
    description: str,
    dataset: str,
    data_description: str,
    base_model: str | None = None,
    license: str = "apache-2.0",
    hyperparams: Mapping[str, Any],
    versions: Mapping[str, str],
) -> str:
    """Write the card of a fine-tuned model, in the sections that transformers uses.

    Args:
      name: the model's name, the card's title.
      metrics: name -> value on the test set; the Hub shows these.
      pipeline: what the model does, in the Hub's words; a key of ``PIPELINES``.
      description: what the model is, in a sentence or two.
      dataset: name of the data that it was trained and tested on.
      data_description: what the examples are and how they were split.
      base_model: the checkpoint that the training started from; None for scratch.
      license: an identifier of the Hub.
      hyperparams: name -> value, listed as they are.
      versions: package -> version.

    Returns:
      Markdown with a YAML head; its values are JSON, which YAML contains.

    Raises:
      InputError: for an unknown pipeline; lists the known ones.
    """
    if pipeline not in PIPELINES:
        raise InputError(
            f"the pipeline is {pipeline!r}; expected one of {sorted(PIPELINES)}."
        )
    head = {
        "library_name": "transformers",
        "license": license,
        **({} if base_model is None else {"base_model": base_model}),
        "pipeline_tag": pipeline,
        "tags": ["jft", pipeline],
        "metrics": list(metrics),
        "model-index": [_model_index(name, metrics, pipeline, dataset=dataset)],
    }
    start = "from scratch" if base_model is None else f"from {base_model}"
    rows = "".join(f"| {key} | {value:.4g} |\n" for key, value in metrics.items())
    return f"""---
{"".join(f"{key}: {json.dumps(value)}{chr(10)}" for key, value in head.items())}---

# {name}

## Model description

{description} Trained {start} with jft.

## Intended uses & limitations

{PIPELINES[pipeline]}

## Training and evaluation data

{dataset}: {data_description}

## Training procedure

### Training hyperparameters

{_bullets(hyperparams)}
### Training results

| test metric | value |
|---|---|
{rows}
### Framework versions

{_bullets(versions)}"""


def _model_index(
    name: str, metrics: Mapping[str, float], pipeline: str, *, dataset: str
) -> dict[str, Any]:
    # a result that lacks task, dataset or metrics is dropped by the Hub
    return {
        "name": name,
        "results": [
            {
                "task": {"name": pipeline.replace("-", " ").title(), "type": pipeline},
                "dataset": {"name": dataset, "type": dataset, "split": "test"},
                "metrics": [
                    {"name": key, "type": key, "value": float(value)}
                    for key, value in metrics.items()
                ],
            }
        ],
    }


def _bullets(items: Mapping[str, Any]) -> str:
    return "".join(f"- {key}: {value}\n" for key, value in items.items())
