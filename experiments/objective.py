# SPDX-License-Identifier: Apache-2.0
"""What is minimised: the task's loss, and what a config adds to it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jft
from experiments import forward
from jft import data, train
from jft.config import Config, Range
from jft.models.cudnn import check_attention
from jft.models.remat import check_rules
from jft.tasks import Task, call_with_options, get_task
from jft.types import ApplyFn, Batch, InputError, LossFn, PrefixFn

# These shape the training alone; an evaluation measures the plain loss.
WEIGHTS = "class_weights"
TRAINING_ONLY = ("label_smoothing", "focal_gamma", WEIGHTS)
RANGES = {
    "label_smoothing": Range(minimum=0, below=1),
    "focal_gamma": Range(minimum=0),
    "scale": Range(above=0),
}


def check(config: Config) -> None:
    """Refuse a loss, or something added to it, that the task does not have."""
    task, options = get_task(config.data.task), config.train.loss_options
    # the weights of classes wait for the data
    _make_loss(task, {k: None if k == WEIGHTS else x for k, x in options.items()})
    for name, limits in RANGES.items():
        if name in options and not limits.holds(options[name]):
            raise InputError(
                f"train.loss_options.{name} is {options[name]}; expected a number "
                f"{limits}."
            )
    check_rules(config.train.remat)
    check_attention(config.model.attention, config.train.compute_dtype)
    if config.train.teacher.model is not None:
        divergence(task, "train.teacher")
    if config.train.r_drop:
        divergence(task, "train.r_drop")
    _check_chunks(config, task)


def _check_chunks(config: Config, task: Task) -> None:
    size = config.train.loss_chunk
    if size and not task.sums_tokens:
        raise InputError(
            f"train.loss_chunk is {size}, but the task {task.name!r} does not predict "
            "words, token by token; set it to None."
        )
    if size and config.train.r_drop:
        raise InputError(
            f"train.loss_chunk is {size}, but train.r_drop compares all logits of two "
            "passes; set one of them to 0."
        )


def train_loss(config: Config, examples: data.Examples) -> LossFn:
    """The task's loss with the options of the config."""
    options = dict(config.train.loss_options)
    if (given := options.get(WEIGHTS)) is not None:
        options[WEIGHTS] = class_weights(given, examples)
    return _make_loss(get_task(config.data.task), options)


def no_loss(outputs: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Of an evaluation that has nothing to compare with."""
    del outputs, batch
    return jnp.zeros(()), jnp.zeros(())


def eval_loss(config: Config) -> LossFn:
    """The task's loss without what shapes the training."""
    options = config.train.loss_options
    kept = {name: x for name, x in options.items() if name not in TRAINING_ONLY}
    return _make_loss(get_task(config.data.task), kept)


def _make_loss(task: Task, options: Mapping[str, Any]) -> LossFn:
    return call_with_options(task.make_loss, options=options, what="train.loss_options")


def class_weights(given: Any, examples: data.Examples) -> np.ndarray:
    """A weight a class: as given, or so that all classes weigh the same."""
    names = examples.class_names
    if given == "balanced":
        return balanced_weights(examples)
    numbers = isinstance(given, tuple) and not any(isinstance(x, str) for x in given)
    if not numbers or len(given) != len(names) or min(given) < 0:
        raise InputError(
            f"train.loss_options.class_weights is {given!r}; expected "
            f'"balanced" or {len(names)} numbers of 0 or more, one for each of '
            f"{list(names)}."
        )
    return np.asarray(given, np.float32)


def balanced_weights(examples: data.Examples) -> np.ndarray:
    """A weight a class; of classes that may hold together, the others' count by its."""
    targets, names = examples.targets, examples.class_names
    if targets is None:  # a tag a word
        targets = np.concatenate(examples.column("targets"))
    if targets.ndim == 1:
        return train.balanced_class_weights(targets, num_classes=len(names))
    counts = targets.sum(axis=0)
    return np.asarray((len(targets) - counts) / counts, np.float32)


class Parts(NamedTuple):
    """What a training step is made of."""

    apply_fn: ApplyFn
    loss_fn: LossFn
    metric_fns: dict[str, LossFn]
    prefix_fn: PrefixFn | None
    chunks: train.Chunks | None


def make_parts(config: Config, model: jft.Pretrained, examples: data.Examples) -> Parts:
    """The forward and the loss of the training step, and what stands around them."""
    task = get_task(config.data.task)
    apply_fn = task.make_apply(forward.remat(config, model, model.apply_fn))
    loss_fn = train_loss(config, examples)
    teacher = config.train.teacher
    if teacher.model is not None:
        loss_fn = train.distillation_loss(
            loss_fn,
            weight=teacher.weight,
            temperature=teacher.temperature,
            divergence_fn=divergence(task, "train.teacher"),
        )
    if config.train.r_drop:
        apply_fn, loss_fn = train.make_r_drop(
            apply_fn,
            loss_fn,
            alpha=config.train.r_drop,
            divergence_fn=divergence(task, "train.r_drop"),
        )
    return Parts(
        apply_fn=apply_fn,
        loss_fn=loss_fn,
        metric_fns=train_metrics(config),
        prefix_fn=forward.prefix_fn(config, model),
        chunks=forward.train_chunks(config, model),
    )


def train_metrics(config: Config) -> dict[str, LossFn]:
    """What a training step measures besides its loss."""
    metrics = get_task(config.data.task).train_metrics
    if not config.train.r_drop:
        return dict(metrics)
    return {name: train.on_first_draw(fn) for name, fn in metrics.items()}


def add_teacher(
    config: Config, model: jft.Pretrained, place: Callable[[Batch], Batch]
) -> Callable[[Batch], Batch]:
    """Place a batch and add ``teacher_logits``, where the config names a teacher.

    Raises:
      InputError: if the teacher is of another task.
    """
    name = config.train.teacher.model
    if name is None:
        return place
    task = get_task(config.data.task)
    teacher = jft.load(
        name, task=task.head, dtype=jnp.dtype(config.train.compute_dtype)
    )
    _check_teacher(teacher, model)
    apply_fn = task.make_apply(teacher.apply_fn)
    ask = jax.jit(lambda params, batch: apply_fn(params, batch, key=None))

    def place_with_teacher(batch: Batch) -> Batch:
        placed = place(batch)
        return {**placed, "teacher_logits": ask(teacher.params, placed)}

    return place_with_teacher


def divergence(task: Task, what: str) -> train.DivergenceFn:
    """How outputs of the task differ, for the setting ``what``."""
    if task.divergence is None:
        raise InputError(
            f"{what} compares two outputs of a model, for which the task "
            f"{task.name!r} knows no measure; leave it out."
        )
    return train.DIVERGENCES[task.divergence]


def _check_teacher(teacher: jft.Pretrained, model: jft.Pretrained) -> None:
    """Refuse a teacher that means other classes or reads other tokens."""
    if teacher.class_names != model.class_names:
        raise InputError(
            f"train.teacher.model knows the classes {list(teacher.class_names)}, the "
            f"data has {list(model.class_names)}; use a teacher of the same task."
        )
    of_both = [getattr(m.processor, "get_vocab", dict)() for m in (teacher, model)]
    if of_both[0] != of_both[1]:
        raise InputError(
            "train.teacher.model has another vocabulary than the model, and both read "
            "the same tokens; use a teacher with the model's tokenizer."
        )
