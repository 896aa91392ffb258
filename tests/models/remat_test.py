# SPDX-License-Identifier: Apache-2.0
"""A block that keeps less gives the same numbers, for less memory and more work."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jft
from jft.models.remat import with_remat
from jft.paths import flatten
from jft.types import InputError
from tests.models import peer
from tests.models.table import TABLE

DEEP = {
    "model_type": "bert",
    "vocab_size": 32,
    "hidden_size": 32,
    "num_hidden_layers": 8,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
}


@pytest.fixture(scope="module")
def deep():
    return jft.init_model(DEEP, key=jax.random.key(0), task="token_classification")


def kept_bytes(model, rules):
    """Bytes that the forward pass leaves for the backward pass."""
    batch = {"input_ids": jnp.ones((4, 128), jnp.int32)}
    apply_fn = with_remat(model.apply_fn, rules)
    key = jax.random.key(1)
    _, vjp = jax.eval_shape(
        lambda params: jax.vjp(lambda p: apply_fn(p, batch, key=key), params),
        model.params,
    )
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(vjp))


def test_the_less_a_policy_keeps_the_less_is_kept(deep):
    kept = {
        policy: kept_bytes(deep, [(r"bert/encoder/layer/\d+", policy)])
        for policy in ("all", "products", "nothing")
    }
    weights = sum(x.nbytes for x in jax.tree.leaves(deep.params))
    inputs = 8 * 4 * 128 * 32 * 4  # of eight blocks, [4, 128, 32] each
    assert kept["nothing"] < 2 * (inputs + weights)
    assert kept["nothing"] < kept["products"] < 0.5 * kept["all"]


def test_the_part_below_the_head_follows_the_rules_too(deep):
    """Losses that are scored in chunks run it alone."""

    def run(params, batch, *, key):
        below = with_remat(deep.prefix_fn, [(r"bert/encoder/layer/\d+", "nothing")])
        return below(params, batch, stop=9, key=key)["hidden@9"]

    less = kept_bytes(deep._replace(apply_fn=run), [])
    assert less < 0.5 * kept_bytes(deep, [])


def test_a_rule_is_for_the_blocks_that_it_names(deep):
    none = kept_bytes(deep, [])
    half = kept_bytes(deep, [("bert/encoder/layer/[0-3]", "nothing")])
    rest = kept_bytes(deep, [("bert/encoder/layer/[4-7]", "all"), (".*", "nothing")])
    whole = kept_bytes(deep, [(".*", "nothing")])
    assert half == rest
    np.testing.assert_allclose(none - half, half - whole, rtol=0.01)


@pytest.mark.parametrize("policy", ["products", "nothing"])
@pytest.mark.parametrize("model_type", ["bert", "albert", "llama", "t5", "bart"])
def test_numbers_stay(model_type, policy):
    """Dropout too: a mask that is drawn again is the same."""
    row = TABLE[model_type]
    task = "seq2seq_lm" if row.encoder_decoder else "token_classification"
    task = task if task in jft.models.MODELS[model_type].heads else "masked_lm"
    config = peer.full_config(model_type, row, task, row.dropout)
    module, params = peer.make_jft(model_type, config, task, row.scales)
    batch = peer.make_batch(row, config, task)
    apply_fn = jft.models.make_apply_fn(module)

    def gradient(apply_fn):
        def loss(params):
            outputs = apply_fn(params, batch, key=jax.random.key(1))
            return jnp.square(peer.pick(task, outputs)).mean()

        return jax.jit(jax.value_and_grad(loss))(params)

    plain, expected = gradient(apply_fn)
    value, grads = gradient(with_remat(apply_fn, [(".*", policy)]))
    np.testing.assert_allclose(value, plain, rtol=1e-6)
    grads, largest = (
        flatten(grads),
        max(jnp.abs(x).max() for x in flatten(expected).values()),
    )
    for path, leaf in flatten(expected).items():
        np.testing.assert_allclose(grads[path], leaf, atol=1e-5 * largest)


@pytest.mark.parametrize(
    ("rule", "message"),
    [((".*", "some"), "names the policy 'some'"), (("(", "all"), "no regular expr")],
)
def test_what_no_block_could_follow_is_refused(deep, rule, message):
    with pytest.raises(InputError, match=message):
        with_remat(deep.apply_fn, [rule])
