# SPDX-License-Identifier: Apache-2.0
"""T5's attention: no scale, and a bias of the scores by distance."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jft.models.attention import (
    attend,
    kept_in_cache,
    merge_heads,
    split_heads,
    with_cache,
)
from jft.models.layers import Embed, Init, dense
from jft.models.masks import Mask
from jft.models.t5_config import T5Config
from jft.types import Batch


def buckets_by_distance(farthest: int, *, num_buckets: int) -> np.ndarray:
    """Buckets of the distances 0 to ``farthest``: exact first, then by logarithm.

    In numpy's float32, as torch has it: where a logarithm falls on a border, the last
    bit decides.

    >>> buckets_by_distance(9, num_buckets=6)
    array([0, 1, 2, 3, 3, 4, 4, 5, 5, 5], dtype=int32)
    """
    exact = num_buckets // 2
    steps = np.arange(farthest + 1, dtype=np.int32)
    octaves = np.log(np.maximum(steps, exact).astype(np.float32) / np.float32(exact))
    octaves = octaves / np.float32(np.log(farthest / exact))
    far = exact + (octaves * np.float32(num_buckets - exact)).astype(np.int32)
    return np.where(steps < exact, steps, np.minimum(far, num_buckets - 1))


class Attention(nn.Module):
    """Attention without scale; the first block's also has the table of distances."""

    config: T5Config
    causal: bool
    cross: bool = False
    has_table: bool = False

    def setup(self) -> None:
        """Make the table ``[buckets, H]``."""
        cfg = self.config
        if self.has_table:
            buckets, init = cfg.relative_attention_num_buckets, cfg.init(cfg.d_model)
            self.relative_attention_bias = Embed(buckets, cfg.num_heads, init)

    def position_bias(self, queries: jax.Array, num_keys: int) -> jax.Array:
        """Bias of the scores of queries at positions ``[L]``: ``[1, H, L, S]``.

        Half of the buckets are for keys behind the query, unless it is causal.
        """
        cfg = self.config
        farthest = cfg.relative_attention_max_distance
        num_buckets = cfg.relative_attention_num_buckets // (1 if self.causal else 2)
        table = jnp.asarray(buckets_by_distance(farthest, num_buckets=num_buckets))
        distance = jnp.arange(num_keys)[None] - queries[:, None]
        if self.causal:
            buckets = table[jnp.clip(-distance, 0, farthest)]
        else:
            buckets = table[jnp.minimum(jnp.abs(distance), farthest)]
            buckets = jnp.where(distance > 0, buckets + num_buckets, buckets)
        bias: jax.Array = self.relative_attention_bias(buckets)
        return bias.transpose(2, 0, 1)[None]

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        batch: Batch,
        mask: Mask | None,
        *,
        bias: jax.Array | None = None,
        encoder: jax.Array | None = None,
        deterministic: bool,
    ) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, D]``, looking at ``x`` or at the encoder."""
        cfg = self.config
        inner, init = cfg.num_heads * cfg.d_kv, cfg.init(cfg.d_model)

        def project(x: jax.Array, name: str, init: Init) -> jax.Array:
            y = dense(x, inner, name=name, init=init, bias=False)
            return split_heads(y, cfg.num_heads)

        def keys_and_values(x: jax.Array) -> tuple[jax.Array, jax.Array]:
            return project(x, "k", init), project(x, "v", init)

        if self.cross:
            key, value = kept_in_cache(self, batch, encoder, keys_and_values)
        else:
            key, value = with_cache(self, batch, *keys_and_values(x))
        mixed = attend(
            project(x, "q", cfg.init(cfg.d_model, cfg.d_kv)),
            key,
            value,
            mask=mask,
            scale=1.0,
            bias=bias,
            cross=self.cross,
            dropout_rate=cfg.dropout_rate,
            deterministic=deterministic,
        )
        init_out = cfg.init(inner)
        return dense(
            merge_heads(mixed), cfg.d_model, name="o", init=init_out, bias=False
        )
