# SPDX-License-Identifier: Apache-2.0
"""A model with an adapter: put on, folded in, read and written.

model = jft.load("bert-base-uncased", task="sequence_classification", key=key)
model = jft.adapt(model, adapters.Lora(rank=8, targets=("query", "value")), key=key)
labels = adapters.label_adapted(model.params, base_labels, model.adapter)
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jft.export import write_adapter
from jft.models import make_apply_fn, make_prefix_fn
from jft.params import adapters
from jft.params.init import matches_any
from jft.paths import flatten, unflatten
from jft.pretrained import Pretrained
from jft.types import InputError, Params


def adapt(
    model: Pretrained, adapter: adapters.Adapter, *, key: jax.Array
) -> Pretrained:
    """Put a new adapter on a model; its answers stay the same.

    Args:
      model: the base, which is not changed.
      adapter: the method with its settings.
      key: draws what is new; consumed.

    Returns:
      The model whose ``params`` have the subtree ``adapters``, and whose functions
      read it; ``adapter.also_train`` names the head and what else was drawn new.

    Raises:
      InputError: if the model has an adapter, or the settings do not fit it.
    """
    _check_plain(model)
    if adapter.also_train is None:
        # of a model from scratch all is new, which no adapter could be the answer to
        new = map(re.escape, model.report.new if model.report.used else ())
        rules = (*adapters.head_rules(model.family, model.task), *new)
        adapter = dataclasses.replace(adapter, also_train=rules)
    else:
        rules = adapter.also_train
        adapters.check_also_train(rules, flatten(model.params))
    adapter, chosen = adapter.read_by(model.processor), {}
    if (targets := getattr(adapter, "targets", None)) is not None:
        whole = [p for p in flatten(model.params) if matches_any(rules, p)]
        chosen = adapters.choose_targets(
            targets,
            _products(model),
            head=_head(model) | adapters.modules_of(whole),
            modules=adapters.modules_of(flatten(model.params)),
        )
    elif adapter.kinds:
        products = _products(model)
        chosen = {p: x for p, x in products.items() if x.kind in adapter.kinds}
    leaves_of = adapter.init(chosen, model.params, key)
    return _with(model, adapter, adapters.with_adapters(model.params, leaves_of))


def fold(model: Pretrained, *, params: Params | None = None) -> Pretrained:
    """Make an adapter part of its base; the answers stay the same.

    Args:
      model: the model; one without an adapter comes back as it is.
      params: instead of the model's own, such as those of a training state.

    Returns:
      The plain model.

    Raises:
      InputError: for an adapter that no base could hold.
    """
    params = model.params if params is None else params
    if model.adapter is None:
        return model._replace(params=params)
    folded = adapters.fold(params, model.adapter, products=_products(model))
    return _plain(model, folded)


def check_foldable(model: Pretrained) -> None:
    """Refuse an adapter that ``fold`` would.

    Raises:
      InputError: for an adapter that no base could hold.
    """
    if model.adapter is not None:
        products = _products(model)
        adapters.check_foldable(model.params, model.adapter, products=products)


def load_adapter(folder: str | Path, model: Pretrained) -> Pretrained:
    """Put an adapter that PEFT or jft wrote on its base.

    Args:
      folder: holds adapter_config.json and adapter_model.safetensors.
      model: the base, with the head that the adapter is for.

    Raises:
      InputError: if the folder holds no adapter, one with options that jft has not, or
        one of another base.
    """
    _check_plain(model)
    flat = flatten(model.params)
    names = adapters.make_names(model.family, model.task, flat)
    adapter, leaves_of, trained = adapters.read_adapter(
        folder, model.params, _products(model), names, word_scale=_word_scale(model)
    )
    flat |= {path: jnp.asarray(x, flat[path].dtype) for path, x in trained.items()}
    leaves_of = jax.tree.map(jnp.asarray, leaves_of)
    return _with(model, adapter, adapters.with_adapters(unflatten(flat), leaves_of))


def save_adapter(
    directory: str | Path,
    model: Pretrained,
    *,
    params: Params | None = None,
    base_model: str | None = None,
    model_card: str | None = None,
) -> list[Path]:
    """Write a model's adapter as the folder that PEFT and ``load_adapter`` read.

    Args:
      directory: made if absent.
      model: has an adapter.
      params: instead of the model's own, such as those of a training state.
      base_model: the name or folder of the base, to be found again by.
      model_card: becomes README.md.

    Returns:
      The files written.

    Raises:
      InputError: if the model has no adapter, or one that PEFT has not.
    """
    if model.adapter is None:
        raise InputError(
            "the model has no adapter to save; put one on with jft.adapt, or write the "
            "model with jft.save."
        )
    params = model.params if params is None else params
    return write_adapter(
        directory,
        params,
        adapter=model.adapter,
        family=model.family,
        task=model.task,
        base_model=base_model,
        model_card=model_card,
        word_scale=_word_scale(model),
    )


def _check_plain(model: Pretrained) -> None:
    if model.adapter is not None:
        raise InputError(
            f"the model has the adapter {model.adapter} already; fold it in with "
            "jft.fold, or start from the base."
        )


def _config(model: Pretrained) -> Any:
    return model.family.config_from_dict(model.config)


def _products(model: Pretrained) -> dict[str, adapters.Product]:
    return adapters.find_products(model.family, _config(model), model.task)


def _word_scale(model: Pretrained) -> float:
    """What the model multiplies the vectors of its words with."""
    config = _config(model)
    if getattr(config, "scale_embedding", False):
        return float(config.d_model**0.5)
    return float(getattr(config, "embedding_scale", 1.0))


def _head(model: Pretrained) -> set[str]:
    """The modules of the head."""
    rules = model.family.head_rules(model.task)
    paths = (p for p in flatten(model.params) if any(re.fullmatch(r, p) for r in rules))
    return adapters.modules_of(paths)


def _with(model: Pretrained, adapter: adapters.Adapter, params: Params) -> Pretrained:
    """The model with an adapter, whose forward reads the adapters' parameters."""
    base = flatten(adapters.without_adapters(params))
    return _run_by(
        adapters.AdaptedModule(model.module, adapter),
        model,
        params=params,
        family=adapters.adapted_family(model.family, adapter),
        layer_index=adapters.adapted_layer_index(model.layer_index, base),
        adapter=adapter,
    )


def _plain(model: Pretrained, params: Params) -> Pretrained:
    """The model without its adapter."""
    return _run_by(
        model.module.module,
        model,
        params=params,
        layer_index=model.family.layer_index(_config(model)),
        adapter=None,
    )


def _run_by(module: Any, model: Pretrained, **changes: Any) -> Pretrained:
    """The model with another module behind its functions."""
    return model._replace(
        module=module,
        apply_fn=make_apply_fn(module),
        prefix_fn=make_prefix_fn(module),
        **changes,
    )
