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

from jft.config.kinds import Count, Fraction, Positive
from jft.models.arrays import along_last
from jft.models.dropout import drop
from jft.params.adapters.adapter import (
    Call,
    Leaves,
    Product,
    Stored,
    key_of,
    wide,
)
from jft.params.adapters.factors import (
    START,
    both_factors,
    check_rank,
    leading,
    rank_of,
    widened,
)
from jft.params.adapters.peft_names import Names, check_peft_pattern, peft_value
from jft.params.adapters.targets import (
    ALL_LINEAR,
    Patterns,
    Targeted,
    check_kind,
    check_patterns,
    pattern_value,
)
from jft.params.adapters.thin import thin_product
from jft.params.quantised import flatten_whole, in_full
from jft.types import InputError, Params

# starts that change the base's own numbers when PEFT loads the adapter
_CHANGES_BASE = ("corda", "loftq", "lora_ga", "olora", "pissa")


@dataclass(frozen=True, kw_only=True)
class Lora(Targeted):
    """Low-rank adaptation.

    Attributes:
      rank: columns of A.
      alpha: the path is scaled by ``alpha / rank``.
      targets: see `choose_targets`; an embedding or a convolution may be one. Of a
        convolution A is one with fewer outputs and the same stride and padding, and B
        one of size 1, in the groups of the base's.
      rank_pattern: ``{target: rank}``; or, where several name a module, pairs
        ``(target, rank)``, the first of which wins.
      alpha_pattern: ``{target: alpha}``, likewise.
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
    mixes: ClassVar[bool] = True
    still: ClassVar[tuple[str, ...]] = (f"lora_A{START}", f"lora_B{START}")
    known: ClassVar[tuple[str, ...]] = (
        "alpha_pattern", "bias", "init_lora_weights", "lora_alpha", "lora_dropout", "r",
        "rank_pattern", "use_dora", "use_rslora",
    )  # fmt: skip
    endings: ClassVar[Mapping[str, str]] = {
        "lora_A": "lora_A.weight",
        "lora_B": "lora_B.weight",
        "lora_embedding_A": "lora_embedding_A",
        "lora_embedding_B": "lora_embedding_B",
        "lora_magnitude_vector": "lora_magnitude_vector",
    }
    rank: Count = 8
    alpha: Positive = 16.0
    targets: tuple[str, ...] = (ALL_LINEAR,)
    rank_pattern: Patterns[int] = ()
    alpha_pattern: Patterns[float] = ()
    rslora: bool = False
    dora: bool = False
    dropout: Fraction = 0.0
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
        flat, made = flatten_whole(params), {}
        for path, product in products.items():
            rank = pattern_value(self.rank_pattern, path, self.rank)
            check_rank(path, product, rank)
            kernel = flat.get(f"{path}/kernel")
            made[path] = self._draw(path, product, kernel, key_of(key, path))
        return made

    def shapes(self, path: str, product: Product) -> dict[str, tuple[int, ...]]:
        """Of the factors, and of the lengths of columns."""
        pissa = self.init_method == "pissa"
        for name, used in (("dora", self.dora), ("pissa", pissa)):
            if used:
                check_kind(name, path, product)
        rank = pattern_value(self.rank_pattern, path, self.rank)
        (*kernel, num_in, num_out) = product.shape
        if product.kind == "embed":
            return {
                "lora_embedding_A": (num_in, rank),
                "lora_embedding_B": (rank, num_out),
            }
        factors: dict[str, tuple[int, ...]] = {
            "lora_A": (*kernel, num_in * product.groups, rank),
            "lora_B": (rank // product.groups, num_out),
        }
        lengths = {"lora_magnitude_vector": (num_out,)} if self.dora else {}
        return factors | lengths

    def _draw(self, path: str, product: Product, kernel: Any, key: jax.Array) -> Leaves:
        shapes = self.shapes(path, product)
        if product.kind == "embed":
            a, b = shapes.values()
            return {
                "lora_embedding_A": jnp.zeros(a, jnp.float32),
                "lora_embedding_B": jax.random.normal(key, b, jnp.float32),
            }
        if self.dora or self.init_method == "pissa":
            matrix = in_full(kernel, product.shape[0], jnp.float32)
        if self.init_method == "pissa":
            rank = shapes["lora_A"][-1]
            leaves = leading(matrix, rank, self.scale(path))
        else:
            a = shapes["lora_A"]
            bound = math.prod(a[:-1]) ** -0.5  # torch's kaiming_uniform, a = sqrt(5)
            leaves = {
                "lora_A": jax.random.uniform(key, a, jnp.float32, -bound, bound),
                "lora_B": jnp.zeros(shapes["lora_B"], jnp.float32),
            }
        if self.dora:
            lengths = np.linalg.norm(wide(matrix), axis=0)
            leaves["lora_magnitude_vector"] = jnp.asarray(lengths)
        return leaves

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
        a, b = both_factors(leaves, jnp)
        low = thin_product(x, a) if a.ndim == 2 else call.convolve(x, a)
        low = widened(scale * low, b)  # the narrow one is scaled
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
        a, b = both_factors(leaves, jnp)
        w, s = kernel.astype(b.dtype), self.scale(path)
        square = (
            jnp.square(w).sum(axis=0)
            + 2 * s * (b * (a.T @ w)).sum(axis=0)
            + s**2 * (b * ((a.T @ a) @ b)).sum(axis=0)
        )
        present = jax.lax.stop_gradient(jnp.sqrt(square))
        return leaves["lora_magnitude_vector"] / present

    def fold(self, path: str, base: Leaves, leaves: Leaves) -> Leaves:
        """Add the product of the factors to the matrix."""
        wide_leaves = {name: wide(leaf) for name, leaf in leaves.items()}
        scale = self.scale(path)
        if "lora_embedding_A" in leaves:
            delta = wide_leaves["lora_embedding_A"] @ wide_leaves["lora_embedding_B"]
            return {**base, "embedding": wide(base["embedding"]) + scale * delta}
        a, b = both_factors(wide_leaves)
        matrix = wide(base["kernel"]) + scale * np.tensordot(a, b, 1)
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

    @property
    def reads_matrix(self) -> bool:
        """For the lengths of its columns."""
        return self.dora

    def parts(self, path: str, base: Leaves, leaves: Leaves) -> dict[str, np.ndarray]:
        """Its factors, and of DoRA the factors of the outputs."""
        scale = self.scale(path)
        if "lora_embedding_A" in leaves:
            table, b = leaves["lora_embedding_A"], leaves["lora_embedding_B"]
            return {"table": table, "low_B": scale * b}
        a, b = both_factors(leaves)
        if not self.dora:
            return {"low_A": a, "low_B": scale * b}
        lengths = np.linalg.norm(base["kernel"] + scale * (a @ b), axis=0)
        ratio = leaves["lora_magnitude_vector"] / lengths
        return {"outputs": ratio, "low_A": a, "low_B": scale * b * ratio[None]}

    def peft_options(self, adapted: Collection[str], names: Names) -> dict[str, Any]:
        """As of a plain LoRA: PiSSA's has twice the rank."""
        twice = 2 if self.init_method == "pissa" else 1
        ranks = {
            p: twice * pattern_value(self.rank_pattern, p, self.rank) for p in adapted
        }
        rank = twice * self.rank
        alphas = {
            path: self.scale(path) * (math.sqrt(r) if self.rslora else r)
            for path, r in ranks.items()
        }
        alpha = self.alpha * (math.sqrt(twice) if self.rslora else twice)

        def differing(values: Mapping[str, Any], usual: Any) -> dict[str, Any]:
            return {
                names.modules[path]: value
                for path, value in sorted(values.items())
                if not math.isclose(value, usual)
            }

        return {
            "alpha_pattern": differing(alphas, alpha),
            "bias": self.bias,
            "init_lora_weights": True,
            "lora_alpha": alpha,
            "lora_dropout": self.dropout,
            "r": rank,
            "rank_pattern": differing(ranks, rank),
            "use_dora": self.dora,
            "use_rslora": self.rslora,
        }

    @classmethod
    def from_peft(
        cls, config: Mapping[str, Any], stored: Stored, names: Names
    ) -> "Lora":
        """Read the settings; the ranks the tensors tell.

        Raises:
          InputError: for a start that changed the base, or a pattern of no module.
        """
        start = str(config.get("init_lora_weights", True)).lower()
        if start.startswith(_CHANGES_BASE):
            raise InputError(
                f"adapter_config.json: init_lora_weights is {start!r}, which changes "
                "the base too; save it as a plain LoRA, with save_pretrained(…, "
                "path_initial_model_for_weight_conversion=…)."
            )
        named = {path: names.modules[path] for path in stored.leaves_of}
        rank, alpha = config.get("r", 8), float(config.get("lora_alpha", 8))
        pattern = config.get("alpha_pattern") or {}
        for what in ("rank_pattern", "alpha_pattern"):
            check_peft_pattern(what, config.get(what) or {}, named.values())
        alphas = {p: float(peft_value(pattern, x, alpha)) for p, x in named.items()}
        ranks = {path: rank_of(xs, rank) for path, xs in stored.leaves_of.items()}
        return cls(
            rank=rank,
            alpha=alpha,
            targets=tuple(named),
            rank_pattern=tuple((p, r) for p, r in ranks.items() if r != rank),
            alpha_pattern=tuple((p, a) for p, a in alphas.items() if a != alpha),
            rslora=config.get("use_rslora", False),
            dora=config.get("use_dora", False),
            dropout=config.get("lora_dropout", 0.0),
            bias=config.get("bias", "none"),
        )

    def to_torch(self, path: str, leaves: Leaves) -> dict[str, np.ndarray]:
        """What PEFT knows: PiSSA becomes a plain LoRA of twice the rank."""
        arrays = {name: wide(leaf) for name, leaf in leaves.items()}
        if "lora_A" in arrays:
            a, b = both_factors(arrays)
            ones = (1,) * (a.ndim - 2)  # a convolution's B is one of size 1
            arrays |= {"lora_A": a, "lora_B": b.reshape(*ones, *b.shape)}
        kept = {name: x for name, x in arrays.items() if name not in self.still}
        return super().to_torch(path, kept)

    @classmethod
    def from_torch(cls, name: str, tensor: np.ndarray) -> np.ndarray:
        """A convolution's B is a matrix here, of size 1 there."""
        if name == "lora_B":
            tensor = tensor.reshape(tensor.shape[:2])
        return super().from_torch(name, tensor)
