# SPDX-License-Identifier: Apache-2.0
"""From a folder or a config to a model, and back: what joins stages."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jft.export import save_pretrained
from jft.models import Family, family_of, make_apply_fn
from jft.params import (
    MergeReport,
    abstract_params,
    init_params,
    load_pretrained,
    merge,
    read_config,
    read_processor_config,
)
from jft.paths import flatten
from jft.types import ApplyFn, InputError, LayerIndex, Params

SHIPPED: Mapping[str, Path] = {
    # written by experiments.pretrain with configs/letters.py
    "jft:letters_vit": Path(__file__).parent / "shipped" / "letters_vit",
}


class Pretrained(NamedTuple):
    """A model: its forward, its numbers, and what is known of them."""

    module: Any  # the linen module, for its stages
    apply_fn: ApplyFn
    params: Params  # nested dicts of jax arrays, as the checkpoint's keys nest
    config: dict[str, Any]  # config.json, with the classes of the head as it is now
    processor_config: dict[str, Any] | None  # preprocessor_config.json
    class_names: tuple[str, ...]  # by class id
    layer_index: LayerIndex
    num_layers: int  # blocks; the head's layer index is num_layers + 1
    family: Family
    report: MergeReport


def load(
    folder: str | Path,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    key: jax.Array | None = None,
    dtype: Any = jnp.float32,
) -> Pretrained:
    """Load a Hugging Face model folder, with its own head or a new one.

    Args:
      folder: holds config.json, safetensors weights and, for most models,
        preprocessor_config.json; or the name of a model in ``SHIPPED``.
      num_classes: replaces the head by a new one of this size; None keeps the
        checkpoint's head, unless ``class_names`` are given.
      class_names: the names of the new head's classes, in the order of their ids.
      key: draws the new head; consumed. Not used without a new head.
      dtype: the dtype of every parameter.

    Returns:
      The model; ``report`` lists what was used, drawn new, and left.

    Raises:
      InputError: if the folder cannot be read or does not hold this model, or a new
        head lacks its key.
    """
    if str(folder).startswith("jft:") and str(folder) not in SHIPPED:
        raise InputError(
            f"jft ships no model {str(folder)!r}; expected one of {sorted(SHIPPED)}, "
            "or the path of a model folder."
        )
    folder = SHIPPED.get(str(folder), folder)
    config = read_config(folder)
    family = family_of(config)
    reinit: tuple[str, ...] = ()
    if num_classes is not None or class_names is not None:
        names = _names(num_classes, class_names)
        config = with_classes(config, names)
        reinit = family.head_rules
    model_config = family.config_from_dict(config)
    if not reinit:
        template = abstract_params(family, model_config, dtype=dtype)
    elif key is not None:
        template = init_params(family, model_config, key=key, dtype=dtype, only=reinit)
    else:
        raise InputError(
            "a new head (num_classes or class_names) is drawn from a key, and key is "
            "None; pass key=jax.random.key(seed)."
        )
    loaded = load_pretrained(folder, template, base_prefix=family.base_prefix)
    params, report = merge(loaded, template, reinit=reinit)
    return _assemble(
        family,
        params=jax.tree.map(jnp.array, params),  # copies: numpy's memory is not ours
        config=config,
        processor_config=read_processor_config(folder),
        report=report,
    )


def init_model(
    config: Mapping[str, Any],
    *,
    key: jax.Array,
    class_names: Sequence[str] | None = None,
    processor_config: Mapping[str, Any] | None = None,
    dtype: Any = jnp.float32,
) -> Pretrained:
    """Make a model from scratch, with the same record as ``load``.

    Args:
      config: a config.json as a dict; needs ``model_type``.
      key: draws every parameter; consumed.
      class_names: replace the config's classes.
      processor_config: carried along, for the data and the export.
      dtype: the dtype of every parameter.

    Raises:
      InputError: if the config names an unknown model or a value it cannot honour.
    """
    config = dict(config)
    family = family_of(config)
    if class_names is not None:
        config = with_classes(config, class_names)
    params = init_params(family, family.config_from_dict(config), key=key, dtype=dtype)
    return _assemble(
        family,
        params=params,
        config=config,
        processor_config=None if processor_config is None else dict(processor_config),
        report=MergeReport((), tuple(sorted(flatten(params))), (), {}),
    )


def save(
    directory: str | Path,
    model: Pretrained,
    *,
    params: Params | None = None,
    model_card: str | None = None,
    max_shard_size: str = "5GB",
) -> list[Path]:
    """Write a model as the folder that ``load`` and ``transformers`` read.

    Args:
      directory: made if absent.
      model: what to write.
      params: instead of the model's own, such as those of a training state.
      model_card: becomes README.md.
      max_shard_size: the largest weight file.

    Returns:
      The files written.

    Raises:
      InputError: as `jft.export.save_pretrained`, which does the work.
    """
    return save_pretrained(
        directory,
        model.params if params is None else params,
        config=model.config,
        processor_config=model.processor_config,
        model_card=model_card,
        max_shard_size=max_shard_size,
    )


def with_classes(
    config: Mapping[str, Any], class_names: Sequence[str]
) -> dict[str, Any]:
    """Return a config.json's dict with other classes.

    >>> with_classes({"model_type": "vit"}, ["a", "b"])["label2id"]
    {'a': 0, 'b': 1}
    """
    if len(set(class_names)) != len(class_names) or not class_names:
        raise InputError(f"class names must differ; given {list(class_names)}.")
    # a multi-label source would have left its own problem_type and count behind
    kept = {k: v for k, v in config.items() if k not in ("problem_type", "num_labels")}
    return {
        **kept,
        "id2label": {str(i): name for i, name in enumerate(class_names)},
        "label2id": {name: i for i, name in enumerate(class_names)},
    }


def class_names_of(config: Mapping[str, Any], *, num_classes: int) -> tuple[str, ...]:
    """Return the class names of a config.json by id, transformers' own where absent.

    >>> class_names_of({"id2label": {"1": "dog", "0": "cat"}}, num_classes=2)
    ('cat', 'dog')
    """
    names = {int(i): str(name) for i, name in config.get("id2label", {}).items()}
    if names and sorted(names) != list(range(num_classes)):
        raise InputError(
            f"config.json: id2label has the ids {sorted(names)}; they must be 0 to "
            f"{num_classes - 1}."
        )
    return tuple(names.get(i, f"LABEL_{i}") for i in range(num_classes))


def _names(num_classes: int | None, class_names: Sequence[str] | None) -> list[str]:
    if class_names is None:
        assert num_classes is not None
        if num_classes < 1:
            raise InputError(f"num_classes is {num_classes}; a head needs one or more.")
        return list(class_names_of({}, num_classes=num_classes))
    if num_classes not in (None, len(class_names)):
        raise InputError(
            f"num_classes is {num_classes}, but {len(class_names)} class names are "
            "given; give one of the two."
        )
    return list(class_names)


def _assemble(
    family: Family,
    *,
    params: Params,
    config: dict[str, Any],
    processor_config: dict[str, Any] | None,
    report: MergeReport,
) -> Pretrained:
    model_config = family.config_from_dict(config)
    module = family.make_module(model_config)
    return Pretrained(
        module=module,
        apply_fn=make_apply_fn(module, input_field=family.input_field),
        params=params,
        config=config,
        processor_config=processor_config,
        class_names=class_names_of(config, num_classes=model_config.num_labels),
        layer_index=family.layer_index(model_config),
        num_layers=family.num_layers(model_config),
        family=family,
        report=report,
    )
