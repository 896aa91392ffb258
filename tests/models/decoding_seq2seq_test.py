# SPDX-License-Identifier: Apache-2.0
"""Token by token with a cache, encoder-decoders score what the whole forward scores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jft.models import MODELS
from jft.types import InputError
from tests.models import peer
from tests.models.table import TABLE

TASK = "seq2seq_lm"
NAMES = [name for name in TABLE if TASK in MODELS[name].heads]
SLOTS = peer.TARGET_LENGTH + 2  # some stay empty


def make(model_type):
    row = TABLE[model_type]
    config = peer.full_config(model_type, row, TASK)
    module, params = peer.make_jft(model_type, config, TASK, row.scales)
    batch = peer.make_batch(row, config)
    batch.pop("decoder_attention_mask")
    encoder_layers = MODELS[model_type].num_encoder_layers(module.config)
    return module, params, batch, encoder_layers


def decoding_batch(batch, start, stop):
    """The tokens from ``start`` to ``stop``, written behind those before them."""
    filled = np.broadcast_to(np.arange(SLOTS) < stop, (peer.NUM_TEXTS, SLOTS))
    return {
        "decoder_input_ids": batch["decoder_input_ids"][:, start:stop],
        "attention_mask": batch["attention_mask"],
        "cache_mask": filled.astype(np.int32),
        "cache_index": np.int32(start),
    }


@pytest.mark.parametrize("model_type", NAMES)
def test_token_by_token_is_the_whole(model_type):
    module, params, batch, encoder_layers = make(model_type)
    whole = jax.jit(lambda p: module.apply({"params": p}, batch))(params)

    text = {name: batch[name] for name in ("input_ids", "attention_mask")}

    @jax.jit
    def first(params, tokens):
        hidden = module.apply({"params": params}, text, stop=encoder_layers + 1)
        encoder = {"encoder": hidden["encoder"]}
        return module.apply(
            {"params": params}, tokens, hidden=encoder, mutable=["cache"]
        )

    @jax.jit
    def following(params, cache, tokens):
        variables = {"params": params, "cache": cache}
        return module.apply(variables, tokens, mutable=["cache"])

    # two tokens at once, as of a prompt, then one by one
    logits, state = first(params, decoding_batch(batch, 0, 2))
    found = [logits]
    for start in range(2, peer.TARGET_LENGTH):
        tokens = decoding_batch(batch, start, start + 1)
        logits, state = following(params, state["cache"], tokens)
        found.append(logits)
    np.testing.assert_allclose(jnp.concatenate(found, axis=1), whole, atol=2e-5)
    for leaf in jax.tree.leaves(state["cache"]):
        assert leaf.shape[0] == peer.NUM_TEXTS  # rows may be chosen and repeated


@pytest.mark.parametrize("model_type", NAMES)
def test_first_call_needs_the_encoder(model_type):
    module, params, batch, _ = make(model_type)
    with pytest.raises(InputError, match="the first call that decodes needs hidden"):
        jax.eval_shape(
            lambda p: module.apply(
                {"params": p}, decoding_batch(batch, 0, 1), mutable=["cache"]
            ),
            params,
        )
