# SPDX-License-Identifier: Apache-2.0
"""From a folder, a Hub id or a config to a model, and back: what joins stages."""

import gc
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jft import train
from jft.data.fields.tokenizer import check_tokenizer_fits, load_tokenizer
from jft.export import save_pretrained
from jft.models import Family, family_of, make_apply_fn, make_prefix_fn
from jft.models.classes import (
    HEADS_WITH_CLASSES,
    class_names_of,
    settle_classes,
)
from jft.models.vocabulary import settle_vocabulary
from jft.params import (
    MergeReport,
    abstract_params,
    find_folder,
    init_params,
    load_pretrained,
    merge,
    read_config,
    read_keys,
    read_optional,
)
from jft.params.adapters import Adapter
from jft.params.init import matches_any
from jft.params.quantised import check_kind, has_quantised
from jft.params.quantised_module import QuantisedModule
from jft.paths import flatten
from jft.quantised import Place, choose_products, placing_quantised
from jft.types import (
    ApplyFn,
    InputError,
    LayerIndex,
    Params,
    PrefixFn,
    TensorRules,
)

SHIPPED: Mapping[str, Path] = {
    # written by experiments.pretrain with configs/letters.py
    "jft:letters_vit": Path(__file__).parent / "shipped" / "letters_vit",
}


class Pretrained(NamedTuple):
    """A model: its forward, its numbers, and what is known of them."""

    module: Any  # the linen module, for its stages
    apply_fn: ApplyFn
    prefix_fn: PrefixFn
    params: Params  # nested dicts of jax arrays, as the checkpoint's keys nest
    config: dict[str, Any]  # config.json, with the classes of the head as it is now
    task: str  # what the head answers, a key of family.heads
    processor: Any | None  # a tokenizer; for images preprocessor_config.json as a dict
    generation_config: dict[str, Any] | None  # generation_config.json
    class_names: tuple[str, ...]  # by class id; () where the task has no classes
    layer_index: LayerIndex
    num_layers: int  # blocks; the head's layer index is num_layers + 1
    family: Family
    report: MergeReport
    adapter: Adapter | None = None  # see `jft.adapt`


def load(
    name: str | Path,
    *,
    task: str | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    problem_type: str | None = None,
    vocab_size: int | None = None,
    reinit_layers: int = 0,
    key: jax.Array | None = None,
    dtype: Any = jnp.float32,
    mesh: Mesh | None = None,
    revision: str | None = None,
    quantize: str | None = None,
) -> Pretrained:
    """Load a Hugging Face model, with its own head or a new one.

    All of the folder is checked before anything is allocated; then leaves are read one
    at a time, so that little more than the model is ever in memory.

    Args:
      name: a folder with config.json and safetensors weights, a Hub id, or a name in
        ``SHIPPED``.
      task: what the head answers, such as ``"sequence_classification"``; None is the
        head that config.json's ``architectures`` names. A head that the checkpoint
        lacks is drawn new.
      num_classes: replaces the head by a new one of this size.
      class_names: the names of the head's classes, in the order of their ids: of a
        new one, unless the checkpoint's head has these classes for the same problem.
        Without either the checkpoint's head stays.
      problem_type: what a classifier answers, one of
        ``jft.models.classes.PROBLEM_TYPES``; ``"regression"`` needs no classes: its
        head gives one number. None is one class of several.
      vocab_size: rows of the embedding, at least the checkpoint's, for a tokenizer
        that has grown; new rows are drawn as the family initialises.
      reinit_layers: blocks that are drawn new, counted from the top, with what has
        their depth (a final norm) and the pooler: the top of a model is the most
        specific to what it was pre-trained for. Zhang et al. 2020, "Revisiting few-
        sample BERT fine-tuning", arXiv 2006.05987.
      key: draws what is new; consumed. Not used where nothing is.
      dtype: the dtype of every parameter.
      mesh: place each leaf on these devices as ``jft.train.param_shardings`` says;
        None is the default device.
      revision: of the Hub's repository; pin a commit for runs to repeat.
      quantize: ``"int8"`` or ``"nf4"``: every product but the head's as `jft.quantize`
        has it, each as it is read, so that the model is never in memory in full.

    Returns:
      The model; ``report`` lists what was used, drawn new, and left.

    Raises:
      InputError: if the folder cannot be read or does not hold this model, or what is
        new lacks its key.
    """
    _check_dtype(dtype)
    if quantize is not None:
        check_kind(quantize)
    folder = _find(name, revision)
    config = read_config(folder)
    family = family_of(config)
    config = dict(family.settle_config(config, read_keys(folder)))
    task = family.task_of(config) if task is None else family.check_task(task)
    config, is_kept = settle_classes(
        family,
        config,
        task,
        num_classes=num_classes,
        class_names=class_names,
        problem_type=problem_type,
    )
    reinit = () if is_kept else family.head_rules[task]
    grow: tuple[str, ...] = ()
    if vocab_size is not None:
        config = _with_vocabulary(config, vocab_size)
        grow = family.embedding_rules
    model_config = family.config_from_dict(config)
    processor = _load_processor(folder, family, model_config)
    template = abstract_params(family, model_config, task=task, dtype=dtype)
    reinit += _top_rules(family, model_config, template, reinit_layers)
    stored = load_pretrained(folder, family, template, task=task)
    optional = family.head_rules[task] + family.optional_rules.get(task, ())
    absent = flatten(template).keys() - flatten(stored).keys()
    new = [path for path in sorted(absent) if matches_any(optional, path)]
    if reinit or new or grow:
        if key is None:
            what = new or [*reinit, *grow]
            raise InputError(
                f"{what} are drawn new, from a key, and key is None; pass "
                "key=jax.random.key(seed)."
            )
        drawn = (*reinit, *optional, *grow)
        template = init_params(
            family, model_config, task=task, key=key, dtype=dtype, only=drawn
        )
    place = _make_place(template, mesh, family.tensor_rules)
    if quantize is not None:
        paths = flatten(template)
        new += [path for path in paths if matches_any(reinit, path)]
        chosen = choose_products(family, model_config, task, paths=paths, new=new)
        place = placing_quantised(place, chosen, quantize, mesh)
    params, report = merge(
        stored, template, reinit=reinit, optional=optional, grow=grow, place=place
    )
    return _assemble(
        family,
        params=params,
        config=config,
        task=task,
        processor=processor,
        generation_config=read_optional(folder, "generation_config.json"),
        report=report,
    )


def init_model(
    config: Mapping[str, Any],
    *,
    key: jax.Array,
    task: str | None = None,
    class_names: Sequence[str] | None = None,
    problem_type: str | None = None,
    processor: Any | None = None,
    dtype: Any = jnp.float32,
) -> Pretrained:
    """Make a model from scratch, with the same record as ``load``.

    Args:
      config: a config.json as a dict; needs ``model_type``.
      key: draws every parameter; consumed.
      task: what the head answers; None is the head that ``architectures`` names, or
        the family's only one.
      class_names: replace the config's classes.
      problem_type: as ``load``; replaces the config's.
      processor: carried along, for the data and the export. With a tokenizer the
        config gets its ``vocab_size`` and the ids of its special tokens.
      dtype: the dtype of every parameter.

    Raises:
      InputError: if the config names an unknown model, a value it cannot honour, or
        one that the tokenizer contradicts.
    """
    _check_dtype(dtype)
    config = dict(config)
    family = family_of(config)
    task = family.task_of(config) if task is None else family.check_task(task)
    config, _ = settle_classes(
        family, config, task, class_names=class_names, problem_type=problem_type
    )
    has_tokenizer = processor is not None and not isinstance(processor, Mapping)
    if has_tokenizer:
        config = settle_vocabulary(family, config, processor)
    model_config = family.config_from_dict(config)
    if has_tokenizer:
        check_tokenizer_fits(processor, vocab_size=model_config.vocab_size)
    params = init_params(family, model_config, task=task, key=key, dtype=dtype)
    return _assemble(
        family,
        params=params,
        config=config,
        task=task,
        processor=processor,
        generation_config=None,
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
      InputError: as `jft.export.save_pretrained`, which does the work; or if the
        model has an adapter or is quantised.
    """
    if model.adapter is not None:
        raise InputError(
            f"the model has the adapter {model.adapter}; write it apart with "
            "jft.save_adapter, or make it part of the model first, with jft.fold."
        )
    params = model.params if params is None else params
    if has_quantised(params):
        raise InputError(
            "the model is quantised, and a folder holds plain numbers; make it plain "
            "first, with jft.fold."
        )
    return save_pretrained(
        directory,
        params,
        config=model.config,
        task=model.task,
        processor=model.processor,
        generation_config=model.generation_config,
        model_card=model_card,
        max_shard_size=max_shard_size,
    )


def _find(name: str | Path, revision: str | None) -> Path:
    if not str(name).startswith("jft:"):
        return find_folder(name, revision=revision)
    if revision is not None:
        raise InputError(
            f"revision {revision!r} was given with {str(name)!r}, which jft ships; "
            "revisions are the Hub's. Leave it out."
        )
    if str(name) not in SHIPPED:
        raise InputError(
            f"jft ships no model {str(name)!r}; expected one of {sorted(SHIPPED)}, "
            "the path of a model folder, or a Hub id."
        )
    return SHIPPED[str(name)]


def _check_dtype(dtype: Any) -> None:
    if not jnp.issubdtype(dtype, jnp.floating):
        raise InputError(
            f"dtype is {jnp.dtype(dtype).name}; parameters are float32, bfloat16 or "
            "another floating type."
        )


def _top_rules(
    family: Family, model_config: Any, template: Params, reinit_layers: int
) -> tuple[str, ...]:
    """What matches the top blocks and the pooler; nothing where none is drawn new."""
    num_layers = family.num_layers(model_config)
    if not 0 <= reinit_layers <= num_layers:
        raise InputError(
            f"reinit_layers is {reinit_layers}, but the model has {num_layers} blocks; "
            f"expected 0 to {num_layers}."
        )
    if not reinit_layers:
        return ()
    layer_index = family.layer_index(model_config)
    top = range(num_layers - reinit_layers + 1, num_layers + 1)
    return tuple(
        re.escape(path)
        for path in flatten(template)
        if layer_index(path) in top or "pooler" in path.split("/")
    )


def _with_vocabulary(config: dict[str, Any], vocab_size: int) -> dict[str, Any]:
    known = config.get("vocab_size")
    if known is None or vocab_size < known:
        raise InputError(
            f"vocab_size is {vocab_size}, but config.json has vocab_size {known}; an "
            "embedding can only grow, in a model that has one."
        )
    grown = {**config, "vocab_size": vocab_size}
    if config.get("share_encoder_decoder_embeddings") is not False:
        # Marian names it twice
        grown |= {k: vocab_size for k in ("decoder_vocab_size",) if k in config}
    return grown


def _load_processor(folder: Path, family: Family, model_config: Any) -> Any | None:
    if not family.embedding_rules:
        return read_optional(folder, "preprocessor_config.json")
    tokenizer = load_tokenizer(folder)
    if tokenizer is not None:
        check_tokenizer_fits(tokenizer, vocab_size=model_config.vocab_size)
    return tokenizer


def _make_place(
    template: Params, mesh: Mesh | None, tensor_rules: TensorRules
) -> Place:
    """How a leaf goes to its device; always copied, for numpy's memory is not ours.

    Each is waited for, so that no more than one is in memory twice.
    """
    shardings = None
    if mesh is not None:
        chosen = train.param_shardings(template, mesh, tensor_rules=tensor_rules)
        shardings = flatten(chosen)

    def place(path: str, array: np.ndarray | jax.Array) -> jax.Array:
        placed: jax.Array
        if shardings is None:
            placed = jax.device_put(array, may_alias=False)
        else:
            placed = train.place(array, shardings[path], may_alias=False)
        placed.block_until_ready()
        gc.collect(0)  # jax lets go of the numpy arrays that it has read only then
        return placed

    return place


def _assemble(
    family: Family,
    *,
    params: Params,
    config: dict[str, Any],
    task: str,
    processor: Any | None,
    generation_config: dict[str, Any] | None,
    report: MergeReport,
) -> Pretrained:
    model_config = family.config_from_dict(config)
    module = family.make_module(model_config, task)
    if has_quantised(params):
        module = QuantisedModule(module)
    names: tuple[str, ...] = ()
    if task in HEADS_WITH_CLASSES:
        names = class_names_of(config, num_classes=model_config.num_labels)
    return Pretrained(
        module=module,
        apply_fn=make_apply_fn(module),
        prefix_fn=make_prefix_fn(module),
        params=params,
        config=config,
        task=task,
        processor=processor,
        generation_config=generation_config,
        class_names=names,
        layer_index=family.layer_index(model_config),
        num_layers=family.num_layers(model_config),
        family=family,
        report=report,
    )
