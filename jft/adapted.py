# SPDX-License-Identifier: Apache-2.0
"""A model with an adapter: put on, taken off, folded in.

model = jft.load("bert-base-uncased", task="sequence_classification", key=key)
model = jft.adapt(model, adapters.Lora(rank=8, targets=("query", "value")), key=key)
labels = adapters.label_adapted(model.params, base_labels, model.adapter)
"""

import dataclasses
import re
from typing import Any

import jax

from jft import partition
from jft.models import get_family, make_apply_fn, make_prefix_fn
from jft.params import adapters
from jft.params.init import matches_any
from jft.params.quantised import check_kind, flatten_whole, has_quantised, is_quantised
from jft.params.quantised_module import (
    QuantisedModule,
    dequantize_params,
    quantize_params,
)
from jft.pretrained import Pretrained
from jft.quantised import choose_products
from jft.types import InputError, Params


def quantize(model: Pretrained, kind: str) -> Pretrained:
    """Keep a model's products in 8 or 4 bits, for a base that stays as it is.

    The forward dequantises each as it is used, and so does the backward; the adapters
    beside them and what else moves are in full. Dettmers et al. 2023, "QLoRA", arXiv
    2305.14314. Embeddings, norms, biases, the head and what was drawn new stay as they
    are. ``jft.load(…, quantize=kind)`` never has the model in memory in full.

    Args:
      model: the base, which is not changed; before an adapter is put on.
      kind: ``"int8"``, a scale an output channel, or ``"nf4"``, see
        `jft.params.quantised`.

    Returns:
      The model, in whose ``params`` each such kernel is a dict of arrays.

    Raises:
      InputError: if the kind is unknown, or the model is quantised or has an adapter.
    """
    check_kind(kind)
    check_plain(model)
    if has_quantised(model.params):
        raise InputError(
            "the model is quantised already; start from the base, or make it plain "
            "with jft.fold."
        )
    # of a model from scratch all is new, and an adapter would be no answer to it
    chosen = choose_products(
        model.family,
        config_of(model),
        model.task,
        paths=flatten_whole(model.params),
        new=model.report.new if model.report.used else (),
    )
    params = quantize_params(model.params, chosen, kind)
    return _run_by(QuantisedModule(model.module), model, params=params)


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
    check_plain(model)
    if adapter.also_train is None:
        # of a model from scratch all is new, which no adapter could be the answer to
        new = map(re.escape, model.report.new if model.report.used else ())
        rules = (*adapters.head_rules(model.family, model.task), *new)
        adapter = dataclasses.replace(adapter, also_train=rules)
    else:
        rules = adapter.also_train
        adapters.check_also_train(rules, flatten_whole(model.params))
    adapter = adapter.read_by(model.processor)
    flat = flatten_whole(model.params)
    whole = [path for path in flat if matches_any(rules, path)]
    chosen = adapter.choose(
        products_of(model),
        head=_head(model) | adapters.modules_of(whole),
        modules=adapters.modules_of(flat),
    )
    leaves_of = adapter.init(chosen, model.params, key)
    shared = adapter.init_shared(chosen, key)
    params = adapters.with_adapters(model.params, leaves_of, shared)
    return with_adapter(model, adapter, params)


def fold(model: Pretrained, *, params: Params | None = None) -> Pretrained:
    """Make an adapter part of its base; the answers stay the same.

    A quantised base becomes a plain one: its matrices are dequantised, and the adapter
    is added to those, not to the numbers that they were before.

    Args:
      model: the model; a plain one without an adapter comes back as it is.
      params: instead of the model's own, such as those of a training state.

    Returns:
      The plain model.

    Raises:
      InputError: for an adapter that no base could hold.
    """
    params = model.params if params is None else params
    if model.adapter is None and not has_quantised(params):
        return model._replace(params=params)
    if model.adapter is not None:
        check_single(model)
    products = products_of(model)
    if has_quantised(params):
        shapes = {path: product.shape for path, product in products.items()}
        params = dequantize_params(params, shapes, _dtype_of(params))
    if model.adapter is not None:
        params = adapters.fold(params, model.adapter, products=products)
    return without_adapter(model, params)


def check_foldable(model: Pretrained) -> None:
    """Refuse an adapter that ``fold`` would.

    Raises:
      InputError: for an adapter that no base could hold.
    """
    if model.adapter is not None:
        check_single(model)
        products = products_of(model)
        adapters.check_foldable(model.params, model.adapter, products=products)


def check_plain(model: Pretrained) -> None:
    """Refuse a model that has an adapter."""
    if model.adapter is not None:
        raise InputError(
            f"the model has the adapter {model.adapter} already; fold it in with "
            "jft.fold, or start from the base."
        )


def check_single(model: Pretrained) -> None:
    """Refuse a model whose rows have adapters of their own."""
    if isinstance(model.adapter, adapters.Mixed):
        raise model.adapter.no_single()


def config_of(model: Pretrained) -> Any:
    """The config of a model's module."""
    return model.family.config_from_dict(model.config)


def products_of(model: Pretrained) -> dict[str, adapters.Product]:
    """What of a model an adapter can reach, see `find_products`."""
    return adapters.find_products(model.family, config_of(model), model.task)


def _head(model: Pretrained) -> set[str]:
    """The modules of the head."""
    paths = flatten_whole(model.params)
    return adapters.modules_of(p for p in paths if model.family.is_head(p, model.task))


def _dtype_of(params: Params) -> Any:
    """The dtype of a model's parameters, of one that is not quantised."""
    whole = flatten_whole(adapters.without_adapters(params)).values()
    return next(leaf.dtype for leaf in whole if not is_quantised(leaf))


def with_adapter(
    model: Pretrained, adapter: adapters.Adapter, params: Params
) -> Pretrained:
    """Put an adapter that is there on a plain model.

    Args:
      model: without an adapter.
      adapter: the method.
      params: the model's, with the subtree ``adapters``, which the forward reads.
    """
    base = adapters.without_adapters(params)
    labels = adapters.label_adapted(
        params, jax.tree.map(lambda _: "base", base), adapter
    )
    partition.check_quantised_stay(params, labels)
    return _run_by(
        adapters.AdaptedModule(model.module, adapter),
        model,
        params=params,
        family=adapters.adapted_family(model.family, adapter),
        layer_index=adapters.adapted_layer_index(
            model.layer_index, flatten_whole(base)
        ),
        adapter=adapter,
    )


def without_adapter(model: Pretrained, params: Params) -> Pretrained:
    """Take a model's adapter off.

    Args:
      model: has an adapter, or is quantised.
      params: of the model without, such as the base's.
    """
    config = config_of(model)
    module = model.family.make_module(config, model.task)
    return _run_by(
        QuantisedModule(module) if has_quantised(params) else module,
        model,
        params=params,
        family=get_family(model.family.model_type),
        layer_index=model.family.layer_index(config),
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
