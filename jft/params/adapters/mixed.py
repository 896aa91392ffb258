# SPDX-License-Identifier: Apache-2.0
"""Several adapters in one forward: each row of a batch is answered by its own.

Whatever the method, an adapted product of row b with adapter i is

``y = outputs_i * (x inputs_i) W + x A_i B_i + shift_i``

or, where an adapter trained the whole module, such as a head, ``y = x W_i + b_i``. The
leaves of all adapters stand in one array, ``[adapters + 1, …]``; the last is the base
as it is. Rows pick theirs, and the base's product runs once for all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jft.params.adapters.adapter import Adapter, Call, Leaves, Product, wide
from jft.params.adapters.catalog import ADAPTERS
from jft.params.adapters.members import Member, base_of
from jft.params.quantised import in_full
from jft.types import InputError, Params

BASE = -1  # the id of the base alone

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Mixed(Adapter):
    """Which of several adapters answers, each row says: ``adapter_ids [B]``.

    Attributes:
      names: of the adapters, by id.
    """

    by_row: ClassVar[bool] = True
    names: tuple[str, ...]

    def init(
        self, products: Mapping[str, Product], params: Params, key: jax.Array
    ) -> dict[str, Leaves]:
        """Refuse: it is made of adapters that are there."""
        del products, params, key
        raise InputError(
            "a mixture is made of adapters that are there: jft.gather them over their "
            "base, and take what its mixed() returns."
        )

    def forward(self, path: str, call: Call, leaves: Leaves) -> jax.Array:
        """What a module answers, each row by its own adapter."""
        if call.adapter_ids is None:
            raise InputError(
                "the batch has no adapter_ids, by which each of its rows names its "
                f"adapter, of {list(self.names)}: int32 [B], {BASE} for the base "
                "alone; jft.AdapterSet.ids makes them of names."
            )
        ids, last = call.adapter_ids, len(self.names)
        # an id that no adapter has answers NaN, and no other adapter
        known = jnp.where((ids >= 0) & (ids < last), ids, last + 1)
        at = jnp.where(ids == BASE, last, known)
        return _answer(call, at, leaves)

    def fold(self, path: str, base: Leaves, leaves: Leaves) -> Leaves:
        """Refuse: rows differ."""
        del path, base, leaves
        raise self.no_single()

    def check_ids(self, ids: Any, *, num_rows: int) -> np.ndarray:
        """Return ids that are not traced as int32 ``[B]``, if all have an adapter.

        Raises:
          InputError: if they are not one for each row, or one has none.
        """
        array = np.asarray(ids)
        fits = array.shape == (num_rows,) and np.issubdtype(array.dtype, np.integer)
        if not fits or not ((array >= BASE) & (array < len(self.names))).all():
            raise InputError(
                f"adapter_ids is {array.tolist()}; expected {num_rows} whole numbers, "
                f"the places in {list(self.names)} or {BASE} for the base alone."
            )
        return array.astype(np.int32)

    def no_single(self) -> InputError:
        """What to raise where one adapter is needed."""
        return InputError(
            f"the adapters {list(self.names)} answer different rows, so that no base "
            "and no folder can hold them as one; fold or save one of them, or their "
            "weighted sum."
        )


def _answer(call: Call, at: jax.Array, leaves: Leaves) -> jax.Array:
    """``[…, in] -> […, out]``, with the adapters ``at [B]``."""

    def pick(name: str, dtype: Any) -> jax.Array:
        """The leaf of each row: ``[B, …]``."""
        return jnp.take(leaves[name].astype(dtype), at, axis=0, mode="fill")

    def along(x: jax.Array, name: str, run: Callable[..., jax.Array]) -> jax.Array:
        """Multiply ``[…, D]`` with vectors, or add them; as it is without them."""
        if name not in leaves:
            return x
        return run(by_row(x), pick(name, x.dtype)[:, None]).reshape(x.shape)

    def by_row(x: jax.Array) -> jax.Array:
        return x.reshape(len(at), -1, x.shape[-1])

    if "kernel" in leaves:
        y = by_row(call.x) @ pick("kernel", call.x.dtype)
        return along(y.reshape(*call.x.shape[:-1], -1), "bias", jnp.add)
    y = along(call.run(along(call.x, "inputs", jnp.multiply)), "outputs", jnp.multiply)
    if "low_B" in leaves:
        if "table" in leaves:
            ids = jnp.clip(call.x.reshape(len(at), -1), 0, leaves["table"].shape[1] - 1)
            low = leaves["table"].astype(y.dtype).at[at[:, None], ids].get(mode="fill")
        else:
            low = by_row(call.x) @ pick("low_A", y.dtype)
        y = y + (low @ pick("low_B", y.dtype)).reshape(y.shape)
    return along(y, "shift", jnp.add)


# --- made of adapters -----------------------------------------------------------------
def mix(
    members: Mapping[str, Member],
    flat: Mapping[str, Any],
    products: Mapping[str, Product],
) -> dict[str, Leaves]:
    """Put the leaves of several adapters into one array each.

    Ranks are padded with zeros to the largest, the classes of a head with scores of
    minus infinity.

    Args:
      members: the adapters, by name.
      flat: the base's parameters by path, a quantised matrix as one.
      products: see `find_products`.

    Returns:
      Module -> leaves ``[adapters + 1, …]``, see the module's docstring.

    Raises:
      InputError: for a method that a row cannot have of its own, or a parameter that
        was trained beside one and is no product's.
    """
    for name, member in members.items():
        if not member.adapter.mixes:
            raise InputError(
                f"{name!r} is a {type(member.adapter).__name__} adapter, which a row "
                "of a mixed batch cannot have of its own; known are "
                f"{sorted(x.__name__ for x in ADAPTERS.values() if x.mixes)}."
            )
        _check_own(name, member, products)
    modules: dict[str, None] = {}  # in order
    for member in members.values():
        owners = (path.rpartition("/")[0] for path in member.own)
        modules |= dict.fromkeys([*member.leaves_of, *owners])
    stacked = {}
    for module in modules:
        each = list(members.values())
        base = base_of(module, flat)
        if not any(_reads_matrix(module, member) for member in each):
            base.pop("kernel", None)  # of all parameters the one that takes memory
        num_in = products[module].shape[0] if module in products else 0
        full = {n: wide(in_full(x, num_in, jnp.float32)) for n, x in base.items()}
        stacked[module] = _stack(module, each, full)
    return stacked


def _check_own(name: str, member: Member, products: Mapping[str, Product]) -> None:
    for module in member.leaves_of:
        if products[module].kind == "conv":
            raise InputError(
                f"the adapter {name!r} stands beside {module}, a convolution, of which "
                "rows cannot have their own; use the adapter alone."
            )
    for path in member.own:
        module, _, leaf = path.rpartition("/")
        is_product = module in products and products[module].kind == "dense"
        if not (leaf == "bias" or (leaf == "kernel" and is_product)):
            raise InputError(
                f"the adapter {name!r} has trained {path}, which is neither a bias nor "
                "the matrix of a product, so that rows cannot have their own; use the "
                "adapter alone."
            )


def _reads_matrix(module: str, member: Member) -> bool:
    """Whether the base's matrix is needed for an adapter's row of a module.

    It is for what the method computes of it, and where the matrix itself was trained.
    """
    reads = member.adapter.reads_matrix and module in member.leaves_of
    return reads or "kernel" in member.own_of(module)


def _stack(module: str, members: Sequence[Member], base: Arrays) -> Leaves:
    """One module's leaves of all adapters, and of the base last."""
    if any("kernel" in member.own_of(module) for member in members):
        rows = [_whole_row(module, member, base) for member in members]
        rows = _pad_classes([*rows, _kernel_and_bias(base)])
    else:
        rows = _pad_ranks([_row(module, member, base) for member in members])
        rows.append({})
    like = {name: x for row in rows for name, x in row.items()}
    stacked = {
        name: np.stack([row.get(name, _neutral(name, x)) for row in rows])
        for name, x in like.items()
    }
    return {
        name: jnp.asarray(x)
        for name, x in stacked.items()
        if name != "shift" or x.any()  # most adapters leave the biases
    }


def _neutral(name: str, like: np.ndarray) -> np.ndarray:
    """What changes nothing."""
    return np.full_like(like, 1 if name in ("inputs", "outputs") else 0)


def _whole_row(module: str, member: Member, base: Arrays) -> Arrays:
    """A module with all that an adapter has of it."""
    mine = {**base, **member.own_of(module)}
    if leaves := member.leaves_of.get(module):
        mine = member.adapter.fold(module, mine, leaves)
    return _kernel_and_bias(mine)


def _kernel_and_bias(leaves: Leaves) -> Arrays:
    return {name: wide(leaves[name]) for name in ("kernel", "bias") if name in leaves}


def _row(module: str, member: Member, base: Arrays) -> Arrays:
    """What an adapter does to a module's product."""
    mine = {**base, **{name: wide(x) for name, x in member.own_of(module).items()}}
    leaves = {name: wide(x) for name, x in member.leaves_of.get(module, {}).items()}
    row = member.adapter.parts(module, mine, leaves) if leaves else {}
    if "bias" in base:  # which the module adds before its outputs are multiplied
        outputs = row.get("outputs", np.ones_like(base["bias"]))
        kept = outputs if member.adapter.scales_bias else np.ones_like(outputs)
        row["shift"] = mine["bias"] * kept - base["bias"] * outputs
    return row


def _pad_ranks(rows: Sequence[Arrays]) -> list[Arrays]:
    """Columns and rows of zeros up to the largest rank."""
    rank = max((len(row["low_B"]) for row in rows if "low_B" in row), default=0)

    def pad(name: str, x: np.ndarray) -> np.ndarray:
        axis = {"low_A": 1, "table": 1, "low_B": 0}.get(name)
        if axis is None:
            return x
        more = rank - x.shape[axis]
        return np.pad(x, [(0, more if i == axis else 0) for i in range(x.ndim)])

    return [{name: pad(name, x) for name, x in row.items()} for row in rows]


def _pad_classes(rows: Sequence[Arrays]) -> list[Arrays]:
    """Up to the most classes; those that a head has not score minus infinity."""
    most = max(row["kernel"].shape[1] for row in rows)
    if all(row["kernel"].shape[1] == most for row in rows):
        return list(rows)
    padded = []
    for row in rows:
        kernel = row["kernel"]
        more = most - kernel.shape[1]
        bias = row.get("bias", np.zeros(kernel.shape[1], kernel.dtype))
        padded.append(
            {
                "kernel": np.pad(kernel, ((0, 0), (0, more))),
                "bias": np.pad(bias, (0, more), constant_values=-np.inf),
            }
        )
    return padded
