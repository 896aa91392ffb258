# SPDX-License-Identifier: Apache-2.0
"""A step function and the programs it was compiled to, one a set of open groups."""

import contextlib
import gc
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from jft.partition import num_params, split_by
from jft.train.state import TrainState
from jft.types import Batch, Group, InputError, Metrics, Params

OpenGroups = frozenset[Group] | None  # None: the optimizer's own gates decide


@dataclass(frozen=True, kw_only=True)
class TrainStep:
    """``step_fn(state, batch) -> (state, metrics)``, compiled once a set of groups.

    The state's trainables, optimizer state and counters are donated; its frozen
    leaves are not, so that several states may share them. ``open_groups`` is static:
    only those groups are differentiated and updated, and no backward pass runs below
    the lowest of them. With ``None`` everything trainable is differentiated.
    """

    jitted: Any  # the compiled function behind it
    group_of: Callable[[str], Group] | None  # what opens as one
    compiled: dict[Any, "CompiledStep"] = field(default_factory=dict, repr=False)

    def __call__(
        self, state: TrainState, batch: Batch, *, open_groups: OpenGroups = None
    ) -> tuple[TrainState, Metrics]:
        """Take one step; the state is consumed."""
        moving, metrics = self.jitted(*_arguments(state, batch), open_groups)
        return moving._replace(frozen=state.frozen), metrics

    def lower(
        self, state: TrainState, batch: Batch, *, open_groups: OpenGroups = None
    ) -> Any:
        """Lower for these shapes, to look at the program or to compile it ahead."""
        with _no_collection():
            return self.jitted.lower(*_arguments(state, batch), open_groups)

    def compile(
        self, state: TrainState, batch: Batch, *, open_groups: OpenGroups = None
    ) -> "CompiledStep":
        """Compile ahead of the first step, once for the same shapes and groups."""
        program = (open_groups, *map(shapes_of, (state, batch)))
        if program not in self.compiled:
            lowered = self.lower(state, batch, open_groups=open_groups)
            open_, _ = split_open(state.trainable, open_groups, self.group_of)
            self.compiled[program] = CompiledStep(
                executable=lowered.compile(), num_params=num_params(open_)
            )
        return self.compiled[program]


@dataclass(frozen=True, kw_only=True)
class CompiledStep:
    """A step compiled for one set of groups; called like a `TrainStep`."""

    executable: Any
    num_params: int  # scalars that this step moves

    @property
    def flops(self) -> float:
        """Floating-point operations of one step, as the compiler counts them.

        Of losses scored in chunks and of quantised products, it counts one part: it
        cannot know how many there are.
        """
        return float(self.executable.cost_analysis().get("flops", 0.0))

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """Take one step; the state is consumed."""
        moving, metrics = self.executable(*_arguments(state, batch))
        return moving._replace(frozen=state.frozen), metrics


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Pause the garbage collector, which finds next to nothing while jax traces.

    It looks at all that the imports made each time: a quarter of the time of tracing.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def shapes_of(tree: Any) -> Hashable:
    """All of a tree of arrays that a program depends on."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple(
        (jnp.shape(x), jnp.result_type(x), getattr(x, "sharding", None)) for x in leaves
    )


def _arguments(state: TrainState, batch: Batch) -> tuple[TrainState, Params, Batch]:
    return state._replace(frozen=None), state.frozen, batch


def split_open(
    trainable: Params, open_groups: OpenGroups, group_of: Callable[[str], Group] | None
) -> tuple[Params, Params]:
    """Split the trainables into what this step differentiates and the rest."""
    if open_groups is None:
        return split_by(trainable, lambda _: True)
    if group_of is None:
        raise InputError(
            "open_groups was given, but make_train_step got no group_of to know which "
            "leaves they are; pass group_of=layer_index."
        )
    return split_by(trainable, lambda path: group_of(path) in open_groups)
