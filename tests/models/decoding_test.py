# SPDX-License-Identifier: Apache-2.0
"""Token by token with a cache, every decoder says what it says of the whole text."""

import jax
import numpy as np
import pytest

from jft.models import MODELS
from tests.models import peer
from tests.models.table import TABLE

CAUSAL = [name for name in TABLE if "causal_lm" in MODELS[name].heads]
PROMPT, SPARE = 3, 2  # tokens of the first call, slots that stay empty


@pytest.mark.parametrize("model_type", CAUSAL)
def test_decoding_with_the_cache_is_the_whole_forward(model_type):
    """Padded on the left or nowhere; positions count real tokens alone."""
    row = TABLE[model_type]
    config = peer.full_config(model_type, row, "causal_lm")
    module, params = peer.make_jft(model_type, config, "causal_lm", row.scales)
    ids = peer.make_batch(row, config)["input_ids"]
    real = np.ones(ids.shape, np.int32)
    real[1, :2] = 0
    positions = np.maximum(np.cumsum(real, axis=1) - 1, 0).astype(np.int32)
    whole = {"input_ids": ids, "attention_mask": real, "position_ids": positions}
    apply = jax.jit(module.apply, static_argnames="mutable")
    expected = np.asarray(apply({"params": params}, whole))

    slots = np.pad(real, ((0, 0), (0, SPARE)))
    variables, decoded, start = {"params": params}, [], 0
    for stop in range(PROMPT, ids.shape[1] + 1):
        batch = {
            "input_ids": ids[:, start:stop],
            "position_ids": positions[:, start:stop],
            "cache_mask": slots * (np.arange(slots.shape[1]) < stop)[None],
            "cache_index": np.int32(start),
        }
        logits, cache = apply(variables, batch, mutable=("cache",))
        variables, start = {"params": params, **cache}, stop
        decoded.append(np.asarray(logits))
    decoded = np.concatenate(decoded, axis=1)
    np.testing.assert_allclose(decoded[real > 0], expected[real > 0], atol=2e-5)
    assert peer.spread(expected, real > 0) > 0.3
