# SPDX-License-Identifier: Apache-2.0
"""The texts that a model writes: summaries, translations, answers in a chat."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

import jft
from jft import data, evals, processes, tasks
from jft.config import Config
from jft.types import Batch, Interrupted


def write_all(
    model: jft.Pretrained,
    batches: Iterable[Batch],
    config: Config,
    *,
    stop_requested: Callable[[], bool] = lambda: False,
) -> list[str]:
    """The text that the model writes for every row, in the order of ``index``.

    Each of several processes writes its own rows' on its first device.
    """
    if jax.process_count() > 1:
        params = jax.tree.map(jnp.asarray, processes.whole_tree(model.params))
        model = model._replace(params=params)
    written: dict[int, str] = {}
    for batch in batches:
        if stop_requested():
            raise Interrupted("a stop was requested during evaluation")
        texts = write_texts(model, batch, config)
        written |= dict(zip(batch["index"].tolist(), texts, strict=True))
    for others in processes.gather(written):
        written |= others
    return [written[index] for index in sorted(written) if index >= 0]


def write_texts(model: jft.Pretrained, batch: Batch, config: Config) -> list[str]:
    """One text for each row of a batch, as ``evals.generation`` says."""
    generated = evals.generate(
        model,
        {name: batch[name] for name in ("input_ids", "attention_mask")},
        **config.evals.generation,
    )
    return model.processor.batch_decode(
        [
            tokens[:length]
            for tokens, length in zip(generated.tokens, generated.lengths, strict=True)
        ],
        skip_special_tokens=True,
    )


def continue_texts(
    task: tasks.Task, model: jft.Pretrained, examples: data.Examples, config: Config
) -> list[str]:
    """How a decoder goes on from each example."""
    written: list[str] = []
    size = config.data.global_batch_size
    for start in range(0, len(examples), size):
        span = range(start, min(start + size, len(examples)))
        batch = make_prompts(task, model, [examples[i] for i in span])
        written += write_texts(model, batch, config)
    return written


def make_prompts(
    task: tasks.Task, model: jft.Pretrained, examples: Sequence[Mapping[str, Any]]
) -> Batch:
    """The tokens that a decoder goes on from, padded on the left."""
    assert task.make_prompt is not None
    return dict(
        model.processor(
            [task.make_prompt(model, example) for example in examples],
            padding=True,
            padding_side="left",
            add_special_tokens=task.inputs[0].kind != "messages",
            return_tensors="np",
        )
    )
