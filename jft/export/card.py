# SPDX-License-Identifier: Apache-2.0
"""The model card: README.md with the YAML head that the Hub reads."""

import json
import textwrap
from collections.abc import Mapping
from typing import Any

from jft.types import InputError

WIDTH = 88  # of a line

# what the Hub calls a task -> how the card says what the model is for
PIPELINES: Mapping[str, str] = {
    "fill-mask": (
        "It fills in the masked word of texts like those of its training data, and "
        "is a start for fine-tuning. Prepare texts with the tokenizer in this "
        "folder; in other languages its words mean nothing, and it has whatever "
        "bias its data has."
    ),
    "image-classification": (
        "It sorts images like those of its training data into the classes of "
        "`config.json`. Prepare images with `preprocessor_config.json`; on other "
        "kinds of images its answers mean nothing."
    ),
    "question-answering": (
        "It marks the words of a text that answer a question about it, in texts "
        "like those of its training data. Prepare question and text, in this order, "
        "with the tokenizer in this folder. It can only quote: where the text has "
        "no answer it may still mark one, and its answer is as true as the text."
    ),
    "sentence-similarity": (
        "It gives each text a vector; the cosine of two says how alike the texts "
        "are, for texts like those of its training data. A text's vector is the "
        "mean of the last hidden states of its tokens, padding left out. On other "
        "kinds of texts or in other languages the vectors mean nothing, and they "
        "have whatever bias their data has."
    ),
    "summarization": (
        "It shortens texts like those of its training data. Prepare texts with the "
        "tokenizer in this folder. A summary may leave out what matters and may say "
        "what the text does not: let somebody read it who knows the text."
    ),
    "text2text-generation": (
        "It writes a text for a text, as its training data has them. Prepare texts "
        "with the tokenizer in this folder. What it writes may be false and has "
        "whatever bias its data has: let somebody read it before it is used."
    ),
    "text-classification": (
        "It sorts texts like those of its training data into the classes of "
        "`config.json`. Prepare texts with the tokenizer in this folder; on other "
        "kinds of texts or in other languages its answers mean nothing, and it has "
        "whatever bias its data has."
    ),
    "text-generation": (
        "It continues texts like those of its training data. Prepare texts with the "
        "tokenizer in this folder. What it writes may be false and has whatever "
        "bias its data has: let somebody read it before it is used."
    ),
    "token-classification": (
        "It gives each word of texts like those of its training data one of the "
        "tags of `config.json`. Prepare texts with the tokenizer in this folder; a "
        "word's tag is that of its first token. On other kinds of texts or in other "
        "languages its tags mean nothing."
    ),
    "translation": (
        "It translates texts like those of its training data, in their direction "
        "only. Prepare texts with the tokenizer in this folder. A translation may "
        "be fluent and wrong: let somebody read it who knows both languages."
    ),
}

# what else a pipeline's model may be for -> the same; {thing} is what it sees
USES: Mapping[str, str] = {
    "chat": (
        "It answers in conversations like those of its training data. Write the "
        "turns with the tokenizer's chat template. What it says may be false and "
        "has whatever bias its data has: let somebody read it before it is used."
    ),
    "multi_label_classification": (
        "It says of each class of `config.json` whether it fits; of one {thing} "
        "none, one or several may. The sigmoid of a score is a class's probability. "
        "On {thing}s unlike those of its training data its answers mean nothing, "
        "and it has whatever bias its data has."
    ),
    "regression": (
        "It gives {thing}s like those of its training data a number, on the scale "
        "of that data: its one score, as it is. On other kinds of {thing}s the "
        "number means nothing, and it has whatever bias its data has."
    ),
}

# what reads the folder where it is not transformers
LIBRARIES: Mapping[str, str] = {"sentence-similarity": "sentence-transformers"}


def model_card(
    name: str,
    metrics: Mapping[str, float],
    *,
    pipeline: str,
    use: str | None = None,
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
      use: what it is for, a key of ``USES``, where the pipeline's own words do not fit.
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
      InputError: for an unknown pipeline or use; lists the known ones.
    """
    if pipeline not in PIPELINES:
        raise InputError(
            f"the pipeline is {pipeline!r}; expected one of {sorted(PIPELINES)}."
        )
    if use is not None and use not in USES:
        raise InputError(f"use is {use!r}; expected one of {sorted(USES)}, or None.")
    words = PIPELINES[pipeline] if use is None else USES[use]
    words = words.format(thing=pipeline.split("-")[0])
    head = {
        "library_name": LIBRARIES.get(pipeline, "transformers"),
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

{textwrap.fill(words, WIDTH, break_on_hyphens=False)}

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
