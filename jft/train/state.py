# SPDX-License-Identifier: Apache-2.0
"""What a training step carries."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jft.params.quantised import is_quantised
from jft.partition import check_quantised_stay, combine, split
from jft.types import ParamLabels, Params


class TrainState(NamedTuple):
    """Everything that a step reads and, but for ``frozen`` and ``key``, writes."""

    step: jax.Array  # int32 [], optimizer steps taken, skipped ones included
    trainable: Params  # None where frozen
    frozen: Params  # None where trainable; never donated, may be shared
    opt_state: Any  # for the trainables only; same structure in every phase
    key: jax.Array  # the root key; a step uses fold_in(key, step), never history
    nonfinite_streak: jax.Array  # int32 [], skipped steps in a row
    nonfinite_total: jax.Array  # int32 [], skipped steps in all

    @property
    def params(self) -> Params:
        """The whole tree, trainable and frozen."""
        return combine(self.trainable, self.frozen)


def init_state(
    params: Params,
    param_labels: ParamLabels,
    *,
    tx: optax.GradientTransformation,
    key: jax.Array,
    frozen_dtype: Any = None,
) -> TrainState:
    """Allocate the state at step 0.

    Args:
      params: the initial parameters; trainables are copied, since a step donates
        its state, and frozen leaves are shared.
      param_labels: the label tree.
      tx: the optimizer; it sees the trainables only.
      key: root of all randomness of training; kept, not consumed.
      frozen_dtype: store floating frozen leaves in this dtype, such as bfloat16
        when that is the compute dtype; trainables keep theirs.

    Returns:
      The state.

    Raises:
      InputError: if a quantised matrix would train.
    """
    check_quantised_stay(params, param_labels)
    trainable, frozen = split(params, param_labels)
    trainable = _copy(trainable)
    if frozen_dtype is not None:
        frozen = cast_floating(frozen, frozen_dtype)
    # Everything donated has a buffer of its own: an optimizer may keep the initial
    # parameters (L2-SP, EMA), and the caller keeps the key.
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        trainable=trainable,
        frozen=frozen,
        opt_state=_copy(tx.init(trainable)),
        key=jax.random.wrap_key_data(
            _copy(jax.random.key_data(key)), impl=jax.random.key_impl(key)
        ),
        nonfinite_streak=jnp.zeros((), jnp.int32),
        nonfinite_total=jnp.zeros((), jnp.int32),
    )


def _copy(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), tree)


def cast_floating(tree: Any, dtype: Any) -> Any:
    """Cast the floating-point leaves of a tree and leave the others alone.

    What scales a quantised matrix is one of the others: it is multiplied in float32.

    >>> tree = {"w": jnp.ones(1), "n": jnp.ones(1, int)}
    >>> cast_floating(tree, jnp.bfloat16)["w"].dtype
    dtype(bfloat16)
    """

    def cast(leaf: Any) -> Any:
        if is_quantised(leaf):
            return leaf
        is_float = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
        return jnp.asarray(leaf).astype(dtype) if is_float else leaf

    return jax.tree.map(cast, tree, is_leaf=is_quantised)
