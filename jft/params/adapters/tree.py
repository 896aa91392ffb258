# SPDX-License-Identifier: Apache-2.0
"""The tree of a model with adapters: taken apart, labelled, and made one again."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp

from jft.models import Family
from jft.params.adapters.adapter import SUBTREE, Adapter, Leaves, Product
from jft.params.init import matches_any
from jft.params.quantised import whole_path
from jft.paths import flatten, map_with_path, unflatten
from jft.types import FROZEN, InputError, LayerIndex, ParamLabels, Params

# what a new head answers is no adapter's to learn
HEADS_OF_THEIR_OWN = (
    "sequence_classification",
    "token_classification",
    "question_answering",
    "image_classification",
)


def adapters_of(params: Params) -> dict[str, Leaves]:
    """The adapters' parameters by module: ``{path: {name: leaf}}``."""
    found: dict[str, Leaves] = {}
    for path, leaf in flatten(params.get(SUBTREE, {})).items():
        module, _, name = path.rpartition("/")
        if module:
            found.setdefault(module, {})[name] = leaf
    return found


def shared_of(params: Params) -> Leaves:
    """What all adapted modules share: ``{name: leaf}``."""
    own = flatten(params.get(SUBTREE, {}))
    return {path: leaf for path, leaf in own.items() if "/" not in path}


def without_adapters(params: Params) -> Params:
    """The base's parameters."""
    return {name: tree for name, tree in params.items() if name != SUBTREE}


def with_adapters(
    params: Params, leaves_of: Mapping[str, Leaves], shared: Leaves | None = None
) -> Params:
    """The base's parameters with a subtree of adapters beside them."""
    if not leaves_of:
        return without_adapters(params)
    flat = dict(shared or {}) | {
        f"{path}/{name}": x for path, xs in leaves_of.items() for name, x in xs.items()
    }
    return {**without_adapters(params), SUBTREE: unflatten(flat)}


def modules_of(paths: Iterable[str]) -> set[str]:
    """The modules that have parameters of their own, of the parameters' paths."""
    return {path.rpartition("/")[0] for path in paths}


def norms_of(paths: Iterable[str]) -> set[str]:
    """The modules that are norms, of the parameters' paths: those with a scale."""
    return {path.removesuffix("/scale") for path in paths if path.endswith("/scale")}


def head_rules(family: Family, task: str) -> tuple[str, ...]:
    """Regexes of the head that trains beside an adapter: a classifier."""
    return family.head_rules[task] if task in HEADS_OF_THEIR_OWN else ()


def head_paths(family: Family, task: str, paths: Iterable[str]) -> set[str]:
    """The parameters of the head that trains beside an adapter."""
    if task not in HEADS_OF_THEIR_OWN:
        return set()
    return {path for path in paths if family.is_head(path, task)}


def adapted_layer_index(layer_index: LayerIndex, paths: Iterable[str]) -> LayerIndex:
    """Give each of an adapter's parameters the depth of the module it stands beside.

    A module that holds others is as deep as the deepest of its parameters; what all
    modules share is as deep as the embeddings: below whatever reads it.

    Args:
      layer_index: the family's.
      paths: the base's parameters.
    """
    depth_of: dict[str, int] = {}
    for path in paths:
        depth, parts = layer_index(path), path.split("/")
        for module in ("/".join(parts[:i]) for i in range(1, len(parts))):
            depth_of[module] = max(depth, depth_of.get(module, 0))

    def of_adapted(path: str) -> int:
        prefix, _, rest = path.partition("/")
        if prefix != SUBTREE:
            return layer_index(path)
        module = rest.rpartition("/")[0]
        if not module:
            return 0
        if module not in depth_of:
            raise InputError(
                f"{path} adapts {module}, a module that the model has not; expected "
                f"the path of a module after {SUBTREE}/."
            )
        return depth_of[module]

    return of_adapted


def adapted_family(family: Family, adapter: Adapter) -> Family:
    """The record of a family whose texts an adapter makes longer."""
    if adapter.packs and not adapter.most_tokens(0):
        return family

    def max_positions(config: Any) -> int | None:
        most = family.max_positions(config)
        return None if most is None else adapter.most_tokens(most)

    def packed_heads(config: Any) -> tuple[str, ...]:
        return family.packed_heads(config) if adapter.packs else ()

    return dataclasses.replace(
        family, max_positions=max_positions, packed_heads=packed_heads
    )


def label_adapted(
    params: Params, base_labels: ParamLabels, adapter: Adapter
) -> ParamLabels:
    """Label what an adapter lets move; the rest of the base is frozen.

    Adapters have the label ``"adapter"``, but the second factors of LoRA, which are
    ``"lora_B"``: LoRA+ gives them a higher rate, as a label's multiplier (Hayou et al.
    2024, arXiv 2402.12354: 16).

    Args:
      params: the model's, with adapters.
      base_labels: of the base alone; what moves of it keeps its label.
      adapter: the method.

    Returns:
      Labels of the structure of ``params``.
    """
    label_of = flatten(base_labels)
    adapted = adapters_of(params).keys()
    norms = norms_of(label_of)
    rules = adapter.also_train or ()

    def label(path: str, leaf: Any) -> str:
        if path.startswith(f"{SUBTREE}/"):
            name = path.rpartition("/")[2]
            return FROZEN if name in adapter.still else _own_label(name)
        whole = whole_path(path)
        moves = matches_any(rules, whole) or adapter.moves(whole, adapted, norms)
        return label_of[path] if moves else FROZEN

    return map_with_path(label, params)


def _own_label(name: str) -> str:
    return "lora_B" if re.fullmatch(r"lora(_embedding)?_B", name) else "adapter"


def check_foldable(
    params: Params, adapter: Adapter, *, products: Mapping[str, Product]
) -> None:
    """Refuse what ``fold`` would, before there is anything to fold."""
    if not adapter.foldable:
        raise InputError(
            f"{type(adapter).__name__} adds what no parameter of the base could hold, "
            "so it cannot be folded. Keep the adapter apart, with jft.save_adapter (in "
            'a config, export.adapter="apart").'
        )
    for module in adapters_of(params):
        if products[module].scores:
            raise InputError(
                f"{module} is the embedding and, transposed, the output layer; its "
                "adapter changes the first alone, so it cannot be folded. Keep the "
                'adapter apart (in a config, export.adapter="apart"), or leave the '
                "embedding out of its targets."
            )
        if products[module].groups > 1:
            raise InputError(
                f"{module} is a convolution in {products[module].groups} groups, and "
                "what its adapter adds mixes all channels, so it cannot be folded. "
                'Keep the adapter apart (in a config, export.adapter="apart"), or '
                "leave the convolution out of its targets."
            )


def fold(
    params: Params, adapter: Adapter, *, products: Mapping[str, Product]
) -> Params:
    """Make the adapters part of the base, with the same answers.

    Args:
      params: the model's; without adapters they come back as they are.
      adapter: the method.
      products: see `find_products`.

    Returns:
      The base's parameters, each in its dtype.

    Raises:
      InputError: for a method that no base could hold; for a table of words that also
        scores the outputs: the adapter changes the look-up alone, and one table cannot
        do both (PEFT puts it into that table, and the merged model answers in another
        way than the one that was trained); for a convolution in groups.
    """
    check_foldable(params, adapter, products=products)
    flat, shared = flatten(without_adapters(params)), shared_of(params)
    for module, leaves in adapters_of(params).items():
        names = [path for path in flat if path.rpartition("/")[0] == module]
        base = {path.rpartition("/")[2]: flat[path] for path in names}
        for name, x in adapter.fold(module, base, {**shared, **leaves}).items():
            flat[f"{module}/{name}"] = jnp.asarray(x, base[name].dtype)
    return unflatten(flat)
