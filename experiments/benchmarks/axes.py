# SPDX-License-Identifier: Apache-2.0
"""What `growth` can change of a config's job, one number at a time."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

import jft
from experiments import build
from experiments.optimizer import make_optimizer
from experiments.plan import make_plan
from jft import partition, paths
from jft.types import FROZEN, InputError, ParamLabels

Shape = tuple[int, int]  # rows and tokens of a batch
Case = tuple[build.Job, Shape]

WIDTHS = (
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
)


def vary_batch(job: build.Job, shape: Shape, value: int) -> Case:
    """That many rows."""
    return job, (value, shape[1])


def vary_length(job: build.Job, shape: Shape, value: int) -> Case:
    """That many tokens a row."""
    return job, (shape[0], value)


def vary_depth(job: build.Job, shape: Shape, value: int) -> Case:
    """That many blocks."""
    sizes_of(job, ["num_hidden_layers"])
    return with_model(job, {"num_hidden_layers": value}), shape


def vary_width(job: build.Job, shape: Shape, value: int) -> Case:
    """That width; MLPs and the number of heads in proportion."""
    sizes = sizes_of(job, WIDTHS)
    base = sizes["hidden_size"]
    if wrong := {k: x for k, x in sizes.items() if x * value % base}:
        raise InputError(
            f"--axis=width has {value}, but the model is {base} wide with {wrong}, "
            "which would not be whole numbers; choose a multiple of the width of a "
            "head."
        )
    return with_model(job, {k: x * value // base for k, x in sizes.items()}), shape


def vary_trainable(job: build.Job, shape: Shape, value: int) -> Case:
    """The head and that many layers below it; the embeddings are the last of them."""
    top = job.model.num_layers + 1
    if value > top:
        raise InputError(
            f"--axis=trainable has {value}, but the model has {top} layers below its "
            f"head, the embeddings among them; choose {top} or less."
        )

    def label(path: str, _: Any) -> str:
        return "open" if job.model.layer_index(path) >= top - value else FROZEN

    return with_labels(job, paths.map_with_path(label, job.model.params), {}), shape


def vary_groups(job: build.Job, shape: Shape, value: int) -> Case:
    """What moves anyway, in that many groups."""
    labels = paths.flatten(job.labels)
    moving = [path for path, label in labels.items() if partition.is_trainable(label)]
    if value > len(moving):
        raise InputError(
            f"--axis=groups has {value}, but {len(moving)} parameters move; choose "
            f"{len(moving)} or less."
        )
    group = {path: f"group{i * value // len(moving)}" for i, path in enumerate(moving)}
    grouped = paths.map_with_path(
        lambda path, _: group.get(path, FROZEN), job.model.params
    )
    multipliers = {f"group{i}": 0.9**i for i in range(value)}
    return with_labels(job, grouped, multipliers), shape


def sizes_of(job: build.Job, names: Sequence[str]) -> dict[str, int]:
    """Those sizes that the family has, of which it must have the first."""
    config = job.model.module.config
    sizes = {name: getattr(config, name, None) for name in names}
    if sizes[names[0]] is None:
        raise InputError(
            f"the axes depth and width change {names[0]}, which a "
            f"{job.model.family.model_type} does not have; choose others with --axis, "
            "or a config of a model with BERT's fields."
        )
    return {name: size for name, size in sizes.items() if size is not None}


def with_model(job: build.Job, changes: Mapping[str, int]) -> build.Job:
    """The job with a new model that differs in a few fields of its config.json."""
    config = job.config
    model = jft.init_model(
        {**job.model.config, **changes},
        key=jax.random.key(config.seed),
        task=job.model.task,
        processor=job.model.processor,
        dtype=jnp.dtype(config.model.dtype),
    )
    labels = partition.label_params(model.params, config.partition.rules)
    return with_labels(job._replace(model=model), labels, config.optim.multipliers)


def with_labels(
    job: build.Job, labels: ParamLabels, multipliers: Mapping[str, float]
) -> build.Job:
    """The job with other groups, and their factors of the learning rate."""
    optim = dataclasses.replace(job.config.optim, multipliers=multipliers)
    config = dataclasses.replace(job.config, optim=optim)
    plan = make_plan(config, job.model, labels, job.loader.steps_per_epoch)
    tx = make_optimizer(config, job.model, labels, plan)
    return job._replace(config=config, labels=labels, plan=plan, tx=tx)


VARY: Mapping[str, Callable[[build.Job, Shape, int], Case]] = {
    "batch": vary_batch,
    "length": vary_length,
    "depth": vary_depth,
    "width": vary_width,
    "trainable": vary_trainable,
    "groups": vary_groups,
}
VALUES: Mapping[str, Sequence[int]] = {
    "batch": (4, 8, 16, 32),
    "length": (32, 64, 128, 256),
    "depth": (1, 2, 4, 8),
    "width": (128, 256, 512),
    "trainable": (),  # as many as the model has
    "groups": (1, 2, 4, 8),
}


def check_axes(axes: Mapping[str, Sequence[int]]) -> None:
    """Refuse an axis that is not known, and a batch or model of nothing."""
    if unknown := sorted(axes.keys() - VARY.keys()):
        raise InputError(f"--axis names {unknown}; expected some of {sorted(VARY)}.")
    for axis, values in axes.items():
        if axis != "trainable" and 0 in values:
            raise InputError(
                f"--axis={axis} has the value 0; expected values of 1 or more."
            )
