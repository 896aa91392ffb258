# SPDX-License-Identifier: Apache-2.0
"""The vocabulary: aliases, protocols and the one error class for bad input.

Shape letters, used in every annotation of the package:
``B`` batch, ``L`` length, ``D`` model width, ``H`` heads, ``K`` head width,
``F`` MLP width, ``V`` vocabulary, ``C`` classes.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax

Params: TypeAlias = Any  # nested dict of arrays; library functions take any pytree
ParamLabels: TypeAlias = Any  # same structure as the params, one string a leaf
Batch: TypeAlias = Mapping[str, Any]  # field name -> array whose first axis is B
Metrics: TypeAlias = dict[str, jax.Array]  # name -> scalar
Schedule: TypeAlias = Callable[[Any], Any]  # step (int) -> value (float)
LayerIndex: TypeAlias = Callable[[str], int]  # parameter path -> depth
Group: TypeAlias = Hashable  # what opens as one: usually a layer's depth
TensorRules: TypeAlias = Sequence[tuple[str, int]]  # regex of paths -> axis to spread

FROZEN = "frozen"  # the label of every parameter that does not move
# ``hidden@3`` is the field of a batch with the activations at boundary 3, where the
# forward then starts: in a name, so that each boundary has a program of its own
HIDDEN = "hidden@"


@runtime_checkable  # so that annotations can be checked under pytest
class ApplyFn(Protocol):
    """A model's forward: pure, deterministic when ``key`` is None."""

    def __call__(self, params: Params, batch: Batch, *, key: jax.Array | None) -> Any:
        """Return the outputs, usually logits ``[B, C]``; the key is consumed."""


@runtime_checkable
class PrefixFn(Protocol):
    """The part of a model's forward below a boundary, deterministic without a key."""

    def __call__(
        self, params: Params, batch: Batch, *, stop: int, key: jax.Array | None = None
    ) -> Batch:
        """Return the batch with its activations at ``stop``, see `HIDDEN`."""


@runtime_checkable
class LossFn(Protocol):
    """A loss as a sum and a weight, so that any grouping gives the same mean."""

    def __call__(self, outputs: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Return ``(sum, weight)``, two scalars; the mean is their ratio."""


class InputError(ValueError):
    """Something the user gave is wrong: what was given, expected, and what to do.

    Scripts print its one sentence and exit with status 2.
    """


class Interrupted(Exception):  # noqa: N818 - an event, not a fault
    """A stop was asked for (SIGTERM, Ctrl-C) while long work was under way."""
