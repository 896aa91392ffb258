# SPDX-License-Identifier: Apache-2.0
"""DeBERTa's attention: content looks at content and at distances.

A score is the sum of up to three products, over the square root of the head's width
times their number: content with content, content with position (``c2p``: the query
with its distance to the key) and position with content (``p2c``: the key with the
query's distance to it). He et al. 2021, arXiv 2006.03654.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jft.models.attention import attend, merge_heads, split_heads
from jft.models.deberta_v2_config import DebertaV2Config
from jft.models.dropout import dropout
from jft.models.masks import Mask


def score_distances(x: jax.Array, rows: jax.Array) -> jax.Array:
    """Score each token against the distances to all tokens.

    No gather, whose derivative would be a slow scatter: the table of scores is read
    with rows one shorter, so that each starts a distance earlier than the one before.

    Args:
      x: ``[B, L, H, K]``.
      rows: ``[2L - 1, H, K]``, of the distances ``1 - L`` to ``L - 1``.

    Returns:
      ``[B, H, L, L]``: entry ``i, j`` is token i with the row of ``j - i``.
    """
    batch, length, num_heads, _ = x.shape
    scores = jnp.einsum("blhk,dhk->bhld", x, rows)
    padded = jnp.pad(scores, ((0, 0), (0, 0), (0, 0), (0, 1)))
    flat = padded.reshape(batch, num_heads, 2 * length * length)
    flat = flat[..., length - 1 : -1]
    return flat.reshape(batch, num_heads, length, -1)[..., :length]


class SelfAttention(nn.Module):
    """Content looks at content and at distances."""

    config: DebertaV2Config

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        table: jax.Array | None,
        mask: Mask | None,
        *,
        deterministic: bool,
    ) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, D]``; ``table [R, D]`` has a row a distance."""
        cfg = self.config
        names = ("query_proj", "key_proj", "value_proj")
        to_query, to_key, to_value = map(self.product, names)
        query, key, value = to_query(x), to_key(x), to_value(x)
        scale = (query.shape[-1] * (1 + len(cfg.terms))) ** -0.5
        bias = None
        if table is not None and cfg.terms:
            table = dropout(table, cfg.hidden_dropout_prob, deterministic=deterministic)
            rows = cfg.rows_of_distances(x.shape[1])
            used, at = np.unique(rows, return_inverse=True)
            table, scores = table[used], []
            if "c2p" in cfg.terms:
                to_pos = to_key if cfg.share_att_key else self.product("pos_key_proj")
                # a query's distance to a key is i - j
                scores.append(score_distances(query, to_pos(table)[at[::-1]]))
            if "p2c" in cfg.terms:
                to_pos = (
                    to_query if cfg.share_att_key else self.product("pos_query_proj")
                )
                by_key = score_distances(key, to_pos(table)[at])
                scores.append(by_key.swapaxes(-1, -2))
            bias = sum(scores) * scale
        mixed = attend(
            query,
            key,
            value,
            mask=mask,
            scale=scale,
            bias=bias,
            dropout_rate=cfg.attention_probs_dropout_prob,
            deterministic=deterministic,
        )
        return merge_heads(mixed)

    def product(self, name: str) -> Callable[[jax.Array], jax.Array]:
        """Make ``[..., D] -> [..., H, K]``, to be called on tokens and distances."""
        cfg = self.config
        layer = nn.Dense(cfg.hidden_size, kernel_init=cfg.init, name=name)

        def project(x: jax.Array) -> jax.Array:
            flat = layer(x.reshape(-1, cfg.hidden_size))
            return split_heads(flat.reshape(x.shape), cfg.num_attention_heads)

        return project
