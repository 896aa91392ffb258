# SPDX-License-Identifier: Apache-2.0
"""The model that a run starts from, and what it was before its new head."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

import jft
from experiments import dataset, source_task, two_heads
from experiments.adapter import add_adapter
from jft import data
from jft.config import Config, ModelConfig
from jft.models import family_of
from jft.tasks import call_with_options, get_task
from jft.types import InputError


def load_model(
    config: Config, examples: data.Examples, *, key: jax.Array
) -> jft.Pretrained:
    """Load the checkpoint with a new head, or make the model from scratch.

    The config's adapter is on it. ``examples`` name its classes.
    """
    settings, task = config.model, get_task(config.data.task)
    classes = {} if not examples.class_names else {"class_names": examples.class_names}
    if task.problem_type is not None:
        classes["problem_type"] = task.problem_type
    if settings.pretrained is not None:
        model = _load_checkpoint(
            settings,
            task=task.head,
            key=key,
            reinit_layers=settings.reinit_layers,
            **classes,
        )
    else:
        of_config = {"model_type": settings.model_type, **settings.model_config}
        model = jft.init_model(
            of_config,
            key=key,
            task=task.head,
            processor=processor_config_of(of_config)
            if task.reads == "image"
            else make_tokenizer(config, examples),
            dtype=jnp.dtype(settings.dtype),
            **classes,
        )
    return add_adapter(config, model, key=jax.random.fold_in(key, 1))


def _load_checkpoint(config: ModelConfig, **options: Any) -> jft.Pretrained:
    assert config.pretrained is not None
    return jft.load(
        config.pretrained,
        dtype=jnp.dtype(config.dtype),
        revision=config.revision,
        quantize=config.quantize,
        **options,
    )


def make_tokenizer(config: Config, examples: data.Examples) -> Any:
    """The tokenizer of a text model from scratch: of a folder, or learned."""
    settings, task = config.model, get_task(config.data.task)
    if settings.tokenizer is None:
        raise InputError(
            f"model.pretrained is None, but the task {task.name!r} needs a tokenizer; "
            'set model.tokenizer to a folder that has one, or to "train".'
        )
    if settings.tokenizer != "train":
        tokenizer = data.load_tokenizer(settings.tokenizer)
        if tokenizer is None:
            raise InputError(
                f"model.tokenizer is {settings.tokenizer!r}, a folder without a "
                "tokenizer.json; name one that has it."
            )
        return tokenizer
    kinds = {column.kind for column in task.columns}
    template = {"chat_template": data.CHATML} if "messages" in kinds else {}
    return call_with_options(
        data.train_tokenizer,
        dataset.all_texts(task, examples),
        max_length=config.data.max_length,
        options={**template, **settings.tokenizer_options},
        what="model.tokenizer_options",
    )


def load_base(config: Config) -> jft.Pretrained:
    """The checkpoint with the head that it came with, and the config's adapter.

    Raises:
      InputError: if it came without a head.
    """
    base = _load_checkpoint(config.model)
    if base.task == "base":
        raise InputError(
            f"{config.model.pretrained} came without a head, so there is no task that "
            "it could do before; leave out what asks for its old answers."
        )
    # its forward reads an adapter too, where the model has one
    return add_adapter(config, base, key=jax.random.key(0))


def load_old_model(
    config: Config, model: jft.Pretrained
) -> source_task.OldModel | None:
    """What ``model`` was before its new head, where the config looks back at it."""
    if config.source.name is None and not two_heads.asks_old_head(config):
        return None
    old = source_task.find_old_model(load_base(config), model)
    needed = get_task(config.data.task).head
    if config.train.lwf.weight and old.model.task != needed:
        raise InputError(
            f"train.lwf.weight is {config.train.lwf.weight}, but "
            f"{config.model.pretrained} came with the head {old.model.task!r}, which "
            f"cannot answer the inputs of {needed!r}; set it to 0."
        )
    return old


def processor_config_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The preprocessor_config.json of a model from scratch: to its size, to [-1, 1]."""
    config = family_of(settings).config_from_dict(settings)
    known = {field.name for field in dataclasses.fields(config)}
    if unknown := sorted(set(settings) - known - {"model_type"}):
        raise InputError(
            f"model.model_config has unknown fields {unknown}; expected some of "
            f"{sorted(known - {'num_labels'})}."
        )
    (height, width), channels = config.image_size, config.num_channels
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": 2,  # bilinear
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5] * channels,
        "image_std": [0.5] * channels,
        "do_convert_rgb": channels == 3,
    }
