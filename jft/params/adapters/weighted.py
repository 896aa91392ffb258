# SPDX-License-Identifier: Apache-2.0
"""Adapters added up: the base changes by the weighted sum of what each changes.

``W + sum_i w_i (W_i - W)``, where ``W_i`` is a matrix with adapter i folded in, as in
task arithmetic: Ilharco et al. 2022, arXiv 2212.04089. The sum is again an adapter of
the same method, so it can be trained, saved and folded.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, cast

import jax.numpy as jnp
import numpy as np

from jft.params.adapters.adapter import Adapter, Leaves, wide
from jft.params.adapters.factors import both_factors, rank_of
from jft.params.adapters.ia3 import Ia3
from jft.params.adapters.lora import Lora
from jft.params.adapters.members import Member
from jft.params.adapters.tree import norms_of
from jft.params.adapters.tuning import BitFit, NormTuning
from jft.types import InputError

# the axis of a factor along which others stand beside it
SIDES = {"lora_A": -1, "lora_B": 0, "lora_embedding_A": 1, "lora_embedding_B": 0}
BIASES = ("none", "lora_only", "all")  # each moves what those before it do


class Term(NamedTuple):
    """A summand."""

    weight: float
    member: Member


Sum = tuple[Adapter, dict[str, Leaves]]


def sum_adapters(terms: Mapping[str, Term]) -> Sum:
    """Add adapters of one method.

    Args:
      terms: by the names of the adapters.

    Returns:
      The adapter and its parameters; what of the base moves with it is not summed
      here, see `sum_own`.

    Raises:
      InputError: for a method that has no sum, or several methods.
    """
    kinds = {name: type(term.member.adapter) for name, term in terms.items()}
    if len(set(kinds.values())) > 1:
        named = {name: kind.__name__ for name, kind in kinds.items()}
        raise InputError(
            f"adapters of several methods have no sum: {named}; give those of one, or "
            "fold one into the base with jft.fold."
        )
    kind = next(iter(kinds.values()))
    if kind not in SUMS:
        raise InputError(
            f"{sorted(terms)} are {kind.__name__} adapters, which have no sum; known "
            f"are sums of {sorted(known.__name__ for known in SUMS)}."
        )
    adapter, leaves_of = SUMS[kind](terms)
    own = {path for term in terms.values() for path in term.member.own}
    norms = norms_of(own)
    rest = (path for path in sorted(own) if not adapter.moves(path, leaves_of, norms))
    also_train = tuple(map(re.escape, rest))
    return dataclasses.replace(adapter, also_train=also_train), leaves_of


def sum_own(
    terms: Sequence[Term], flat: Mapping[str, Any], new: Collection[str]
) -> dict[str, Any]:
    """Add up what of the base was trained beside the adapters.

    Args:
      terms: the summands; one that left a parameter alone has the base's.
      flat: the base's parameters by path.
      new: paths of what was drawn new, such as a head, where a change from what was
        drawn means nothing: the weighted mean is taken.

    Raises:
      InputError: if there is a mean to take, and the weights sum to zero.
    """
    total = math.fsum(term.weight for term in terms)
    summed = {}
    for path in sorted({path for term in terms for path in term.member.own}):
        base = wide(flat[path])
        arrays = [wide(term.member.own.get(path, flat[path])) for term in terms]
        parts = [(term.weight, x) for term, x in zip(terms, arrays, strict=True)]
        if path in new:
            if abs(total) < 1e-6:
                raise InputError(
                    f"the weights sum to {total:g}, and of {path}, which was drawn "
                    "new, a weighted mean is taken; give weights with another sum."
                )
            value = sum(weight * x for weight, x in parts) / total
        else:
            value = base + sum(weight * (x - base) for weight, x in parts)
        summed[path] = jnp.asarray(value, flat[path].dtype)
    return summed


def _sum_loras(terms: Mapping[str, Term]) -> Sum:
    """Put the factors side by side, the weight and the scale in the first."""
    settings = [cast(Lora, term.member.adapter) for term in terms.values()]
    if bent := sorted(n for n, t in terms.items() if cast(Lora, t.member.adapter).dora):
        raise InputError(
            f"{bent} learn the lengths of the matrices' columns (DoRA), so that what "
            "they change is no product of low rank, and has no sum; give plain LoRAs, "
            "or fold one into the base with jft.fold."
        )
    parts: dict[str, list[Leaves]] = {}
    for term in terms.values():
        for path, leaves in term.member.leaves_of.items():
            parts.setdefault(path, []).append(_weighted_factors(term, path, leaves))
    leaves_of = {path: _side_by_side(xs) for path, xs in parts.items()}
    ranks = {path: rank_of(leaves, 1) for path, leaves in leaves_of.items()}
    rank = max(ranks.values())
    differ = [(path, r) for path, r in ranks.items() if r != rank]
    adapter = Lora(
        rank=rank,
        alpha=float(rank),  # each module's scale is one
        targets=tuple(leaves_of),
        rank_pattern=tuple(differ),
        alpha_pattern=tuple((path, float(r)) for path, r in differ),
        dropout=max(lora.dropout for lora in settings),
        bias=max((lora.bias for lora in settings), key=BIASES.index),
    )
    return adapter, leaves_of


def _weighted_factors(term: Term, path: str, leaves: Leaves) -> dict[str, np.ndarray]:
    """The two factors of all that a LoRA adds to a module, times its weight."""
    arrays = {name: wide(leaf) for name, leaf in leaves.items()}
    scale = term.weight * cast(Lora, term.member.adapter).scale(path)
    if "lora_embedding_A" in arrays:
        a, b = arrays["lora_embedding_A"], arrays["lora_embedding_B"]
        return {"lora_embedding_A": scale * a, "lora_embedding_B": b}
    a, b = both_factors(arrays)
    return {"lora_A": scale * a, "lora_B": b}


def _side_by_side(parts: Sequence[Leaves]) -> Leaves:
    """One pair of factors of several; of a convolution in groups, group by group."""
    joined = {}
    for name in parts[0]:
        arrays = [part[name] for part in parts]
        if name == "lora_A":  # [..., rank] -> [..., groups, rank / groups]
            arrays = [
                a.reshape(*a.shape[:-1], -1, len(part["lora_B"]))
                for a, part in zip(arrays, parts, strict=True)
            ]
        both = np.concatenate(arrays, SIDES[name])
        if name == "lora_A":
            both = both.reshape(*both.shape[:-2], -1)
        joined[name] = jnp.asarray(both)
    return joined


def _sum_factors(terms: Mapping[str, Term]) -> Sum:
    """``1 + sum_i w_i (l_i - 1)``, which changes the matrix by the weighted sum."""
    on_inputs: dict[str, bool] = {}
    summed: dict[str, np.ndarray] = {}
    for term in terms.values():
        ia3 = cast(Ia3, term.member.adapter)
        for path, leaves in term.member.leaves_of.items():
            if on_inputs.setdefault(path, ia3.on_inputs(path)) != ia3.on_inputs(path):
                raise InputError(
                    f"the adapters {sorted(terms)} have no sum: one multiplies the "
                    f"inputs of {path} and another its outputs."
                )
            change = term.weight * (wide(leaves["ia3_l"]) - 1)
            summed[path] = summed.get(path, np.ones_like(change)) + change
    adapter = Ia3(
        targets=tuple(summed),
        feedforward=tuple(path for path in summed if on_inputs[path]),
    )
    return adapter, {path: {"ia3_l": jnp.asarray(x)} for path, x in summed.items()}


def _sum_nothing(terms: Mapping[str, Term]) -> Sum:
    """All that these methods train is the base's own."""
    kind = type(next(iter(terms.values())).member.adapter)
    return kind(), {}


SUMS: Mapping[type[Adapter], Callable[..., Sum]] = {
    BitFit: _sum_nothing,
    Ia3: _sum_factors,
    Lora: _sum_loras,
    NormTuning: _sum_nothing,
}
