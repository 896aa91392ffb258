# SPDX-License-Identifier: Apache-2.0
"""LoRA: a low-rank path beside each product, and what grew out of it.

``y = x W + s (x A) B`` with ``s = alpha / rank``; A is drawn and B is zero, so that
nothing changes at first. Hu et al. 2021, arXiv 2106.09685. The product ``A B`` is never
formed in training: it would cost the gradient of a whole matrix.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jft.models.dropout import drop
from jft.models.layers import along_last
from jft.params.adapters.adapter import Adapter, Call, Leaves, Product, key_of, wide
from jft.params.adapters.targets import ALL_LINEAR, check_patterns, pattern_value
from jft.params.adapters.thin import thin_product
from jft.params.quantised import flatten_whole, in_full
from jft.types import InputError, Params

START = "_start"  # ends the names of PiSSA's first factors, which never move


@dataclass(frozen=True, kw_only=True)
class Lora(Adapter):
    """Low-rank adaptation.

    Attributes:
      rank: columns of A.
      alpha: the path is scaled by ``alpha / rank``.
      targets: see `choose_targets`; an embedding may be one.
      rank_pattern: ``(target, rank)``, the first that names a module rules it.
      alpha_pattern: ``(target, alpha)``, likewise.
      rslora: scale by ``alpha / sqrt(rank)``: Kalajdzievski 2023, arXiv 2312.03732.
      dora: learn the length of each column of the matrix apart from its direction:
        Liu et al. 2024, arXiv 2402.09353. Products only.
      dropout: of the path's input.
      bias: which biases of the base move: ``"none"``, ``"all"``, or ``"lora_only"``,
        those of adapted modules.
      init_method: ``"random"``, or ``"pissa"``: A and B are the matrix's leading
        singular vectors, and what they start as is taken off, so that the base stays
        as it is: Meng et al. 2024, arXiv 2404.02948.
    """

    peft_type: ClassVar[str] = "LORA"
    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = (ALL_LINEAR,)
    rank_pattern: tuple[tuple[str, int], ...] = ()
    alpha_pattern: tuple[tuple[str, float], ...] = ()
    rslora: bool = False
    dora: bool = False
    dropout: float = 0.0
    bias: Literal["none", "all", "lora_only"] = "none"
    init_method: Literal["random", "pissa"] = "random"

    def scale(self, path: str) -> float:
        """What the low-rank path of a module is multiplied with."""
        alpha = pattern_value(self.alpha_pattern, path, self.alpha)
        rank = pattern_value(self.rank_pattern, path, self.rank)
        return alpha / (math.sqrt(rank) if self.rslora else rank)

    def init(
        self, products: Mapping[str, Product], params: Params, key: jax.Array
    ) -> dict[str, Leaves]:
        """Draw A, in float32; B is zero. Of an embedding it is the other way round."""
        check_patterns("rank_pattern", self.rank_pattern, products)
        check_patterns("alpha_pattern", self.alpha_pattern, products)
        flat = flatten_whole(params)
        made = {}
        for path, product in products.items():
            rank = pattern_value(self.rank_pattern, path, self.rank)
            _check_rank(path, product, rank)
            if product.kind == "embed":
                self._check_embedding(path)
                made[path] = _init_embedding(product, rank, key_of(key, path))
            else:
                kernel, own = flat[f"{path}/kernel"], key_of(key, path)
                made[path] = self._init_dense(path, product, kernel, rank, own)
        return made

    def _init_dense(
        self, path: str, product: Product, kernel: Any, rank: int, key: jax.Array
    ) -> Leaves:
        num_in, num_out = product.shape
        if self.dora or self.init_method == "pissa":
            matrix = in_full(kernel, num_in, jnp.float32)
        if self.init_method == "pissa":
            leaves = _leading(matrix, rank, self.scale(path))
        else:
            bound = num_in**-0.5  # torch's kaiming_uniform with a = sqrt(5)
            leaves = {
                "lora_A": jax.random.uniform(
                    key, (num_in, rank), jnp.float32, -bound, bound
                ),
                "lora_B": jnp.zeros((rank, num_out), jnp.float32),
            }
        if self.dora:
            lengths = np.linalg.norm(wide(matrix), axis=0)
            leaves["lora_magnitude_vector"] = jnp.asarray(lengths)
        return leaves

    def _check_embedding(self, path: str) -> None:
        unfit = "dora" if self.dora else "pissa" * (self.init_method == "pissa")
        if unfit:
            raise InputError(
                f"{path} is an embedding, and {unfit} is for products alone; leave the "
                "embedding out of the targets."
            )

    def forward(self, path: str, call: Call, leaves: Leaves) -> jax.Array:
        """The module's answer and the low-rank path's; ``[..., in] -> [..., out]``."""
        y = call.run(call.x)
        leaves = {name: leaf.astype(y.dtype) for name, leaf in leaves.items()}
        scale = self.scale(path)
        if "lora_embedding_A" in leaves:
            rows = jnp.take(leaves["lora_embedding_A"], call.x, axis=0, mode="clip")
            return y + thin_product(scale * rows, leaves["lora_embedding_B"])
        x, words = call.x, call.dropout_words() if self.dropout else None
        if words is not None:
            x = drop(x, words, rate=self.dropout)
        low = scale * thin_product(x, _both(leaves, "lora_A"))  # the narrow one
        low = thin_product(low, _both(leaves, "lora_B"))
        if not self.dora:
            return y + low
        bias = call.base("bias")
        product = y if bias is None else y - along_last(bias.astype(y.dtype), y)
        ratio = self._length_ratio(path, call.base("kernel"), leaves)
        return y + along_last(ratio - 1, y) * product + along_last(ratio, y) * low

    def _length_ratio(self, path: str, kernel: jax.Array, leaves: Leaves) -> jax.Array:
        """Wanted over present lengths of the columns of ``W + s A B``: ``[out]``.

        The present ones are taken as constant, as the paper's section 4.3 does.
        ``|w + s a b|² = |w|² + 2 s b·(aᵀ w) + s² b·(aᵀ a) b`` needs no full product.
        """
        a, b = _both(leaves, "lora_A"), _both(leaves, "lora_B")
        w, s = kernel.astype(b.dtype), self.scale(path)
        square = (
            jnp.square(w).sum(axis=0)
            + 2 * s * (b * (a.T @ w)).sum(axis=0)
            + s**2 * (b * ((a.T @ a) @ b)).sum(axis=0)
        )
        present = jax.lax.stop_gradient(jnp.sqrt(square))
        ratio: jax.Array = leaves["lora_magnitude_vector"] / present
        return ratio

    def fold(self, path: str, base: Leaves, leaves: Leaves) -> Leaves:
        """Add the product of the factors to the matrix."""
        wide_leaves = {name: wide(leaf) for name, leaf in leaves.items()}
        scale = self.scale(path)
        if "lora_embedding_A" in leaves:
            delta = wide_leaves["lora_embedding_A"] @ wide_leaves["lora_embedding_B"]
            return {**base, "embedding": wide(base["embedding"]) + scale * delta}
        a, b = both_factors(wide_leaves)
        matrix = wide(base["kernel"]) + scale * (a @ b)
        if self.dora:
            lengths = np.linalg.norm(matrix, axis=0)
            matrix = matrix * (wide_leaves["lora_magnitude_vector"] / lengths)[None]
        return {**base, "kernel": matrix}

    def moves(
        self, path: str, adapted: Collection[str], norms: Collection[str]
    ) -> bool:
        """The biases that ``bias`` names."""
        module, _, leaf = path.rpartition("/")
        if leaf != "bias" or self.bias == "none":
            return False
        return self.bias == "all" or module in adapted


def both_factors(leaves: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The factors of all that is added: of PiSSA ``[A, A'] [B; -B']``."""
    a, b = leaves["lora_A"], leaves["lora_B"]
    if f"lora_A{START}" in leaves:
        a = np.concatenate([a, leaves[f"lora_A{START}"]], axis=1)
        b = np.concatenate([b, -leaves[f"lora_B{START}"]], axis=0)
    return a, b


def rank_of(leaves: Leaves) -> int:
    """Of a module, as the shape of its factor tells."""
    factor = leaves["lora_A" if "lora_A" in leaves else "lora_embedding_A"]
    return int(factor.shape[-1])


def _both(leaves: Leaves, name: str) -> jax.Array:
    """A factor as `both_factors` has it."""
    factor: jax.Array = leaves[name]
    start: jax.Array | None = leaves.get(name + START)
    if start is None:
        return factor
    if name == "lora_A":
        return jnp.concatenate([factor, start], axis=1)
    return jnp.concatenate([factor, -start], axis=0)


def _init_embedding(product: Product, rank: int, key: jax.Array) -> Leaves:
    num_rows, width = product.shape
    return {
        "lora_embedding_A": jnp.zeros((num_rows, rank), jnp.float32),
        "lora_embedding_B": jax.random.normal(key, (rank, width), jnp.float32),
    }


def _leading(matrix: Any, rank: int, scale: float) -> Leaves:
    """The leading part of a matrix as two factors, each twice."""
    u, values, v = np.linalg.svd(wide(matrix), full_matrices=False)
    root = np.sqrt(values[:rank] / scale)
    a = jnp.asarray(u[:, :rank] * root[None])
    b = jnp.asarray(root[:, None] * v[:rank])
    return {
        "lora_A": a,
        "lora_B": b,
        f"lora_A{START}": jnp.array(a, copy=True),
        f"lora_B{START}": jnp.array(b, copy=True),
    }


def _check_rank(path: str, product: Product, rank: int) -> None:
    if not 1 <= rank <= min(product.shape):
        raise InputError(
            f"rank {rank} for {path}, a matrix of {list(product.shape)}; expected 1 to "
            f"{min(product.shape)}. Lower it there with rank_pattern, or for all."
        )
