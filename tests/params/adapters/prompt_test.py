# SPDX-License-Identifier: Apache-2.0
"""Prompts of real words stand for these words; prefixes of a cache for its text."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jft
from experiments import feed, run_config
from jft.evals import generate
from jft.models.packing import is_packed
from jft.params import adapters
from jft.params.adapters import PrefixTuning, PromptTuning
from jft.types import InputError
from tests.params.adapters import table

WORDS = (7, 11, 5)
TEXTS = ("albert", "bert", "deberta-v2", "gpt2", "modernbert", "roberta")
DECODERS = ("gpt2", "gpt_neox", "llama", "mistral")


def longer(batch):
    """The batch with the words before every text of the encoder."""
    fills = {"input_ids": WORDS, "attention_mask": (1,) * 3, "token_type_ids": (0,) * 3}
    made = dict(batch)
    for name in fills.keys() & batch.keys():
        first = np.broadcast_to(np.int32(fills[name]), (len(batch[name]), 3))
        made[name] = np.concatenate([first, batch[name]], axis=1)
    return made


def with_words(model):
    """A prompt that is words."""
    adapter = PromptTuning(num_virtual_tokens=3, prompt_init="text", prompt_text=WORDS)
    return jft.adapt(model, adapter, key=jax.random.key(0))


def answer(model, params, batch):
    forward_fn = jax.jit(lambda params, batch: model.apply_fn(params, batch, key=None))
    return forward_fn(params, batch)


@pytest.mark.parametrize("model_type", [*TEXTS, "bart", "t5"])
def test_a_prompt_of_words_is_these_words(model_type):
    """For heads that answer once; what the decoder reads of the text stays."""
    model, batch = table.make_model(model_type)
    if model_type in ("bart", "t5"):  # its decoder reads the encoder's text by itself
        model, batch = table.make_model(model_type, "seq2seq_lm")
    adapted = with_words(model)
    one = answer(adapted, adapted.params, batch)
    other = answer(model, model.params, longer(batch))
    np.testing.assert_allclose(one, other, atol=1e-5)
    assert np.abs(one - answer(model, model.params, batch)).max() > 1e-2


def test_a_decoder_reads_the_text_without_the_prompt():
    """Where it has no text of its own."""
    model, batch = table.make_model("t5", "question_answering")
    adapted = with_words(model)
    start = model.module.config.decoder_start_token_id
    ids = np.pad(batch["input_ids"][:, :-1], ((0, 0), (1, 0)), constant_values=start)
    other = {**longer(batch), "decoder_input_ids": ids}
    np.testing.assert_allclose(
        answer(adapted, adapted.params, batch),
        answer(model, model.params, other),
        atol=1e-5,
    )


@pytest.mark.parametrize(
    ("model_type", "task"),
    [("bert", "base"), ("gpt2", "causal_lm"), ("t5", "base"), ("bert", "masked_lm")],
)
def test_what_is_answered_for_tokens_is_for_the_texts_alone(model_type, task):
    model, batch = table.make_model(model_type, task)
    adapted = with_words(model)
    one = answer(adapted, adapted.params, batch)
    other = answer(model, model.params, longer(batch))
    if task == "base":
        tokens = {"bert": "last_hidden_state", "t5": "encoder_last_hidden_state"}
        name = tokens[model_type]
        other[name] = other[name][:, 3:]
    else:
        other = other[:, 3:]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one, other)


@pytest.mark.parametrize("adapter", [PromptTuning, PrefixTuning])
@pytest.mark.parametrize(
    ("model_type", "task"),
    [("bert", "sequence_classification"), ("gpt2", "causal_lm"), ("vit", None)],
)
def test_the_stages_of_a_forward_are_the_whole(adapter, model_type, task):
    """At the head's boundary a head of tokens finds the texts' alone."""
    model, batch = table.make_model(model_type, task)
    adapted = jft.adapt(model, adapter(num_virtual_tokens=3), key=jax.random.key(0))
    params = table.trained(adapted.params)
    whole = answer(adapted, params, batch)
    for stop in range(1, model.num_layers + 2):
        part = adapted.prefix_fn(params, batch, stop=stop)
        assert f"hidden@{stop}" in part
        np.testing.assert_allclose(answer(adapted, params, part), whole, atol=1e-5)
    if task == "causal_lm":
        assert part[f"hidden@{stop}"].shape[:2] == batch["input_ids"].shape


# --- prefixes -------------------------------------------------------------------------
def keys_of(model, ids, **fields):
    """The keys and values that texts ``[1, P]`` leave in a decoder's cache."""
    cache = {"cache_mask": np.ones(ids.shape, bool), "cache_index": np.int32(0)}
    _, changed = model.module.apply(
        {"params": model.params}, {**fields, **cache}, mutable=["cache"]
    )
    return adapters.adapters_of({adapters.SUBTREE: changed["cache"]})


def with_prefix(model, leaves_of):
    """A prefix of these keys and values of one text."""
    adapted = jft.adapt(
        model, PrefixTuning(num_virtual_tokens=3), key=jax.random.key(0)
    )
    own = {
        place: {
            f"prefix_{name}": leaves_of[place][name][0] for name in ("key", "value")
        }
        for place in adapters.adapters_of(adapted.params)
    }
    return adapted._replace(params=adapters.with_adapters(model.params, own))


@pytest.mark.parametrize("model_type", DECODERS)
def test_a_prefix_of_a_cache_is_the_text_that_left_it(model_type):
    """So positions, turned keys, groups of heads and windows are as a text's."""
    model, _ = table.make_model(model_type, "causal_lm")
    first = np.asarray([WORDS], np.int32)
    ids = np.asarray([[9, 4, 6, 8, 10], [12, 5, 5, 4, 13]], np.int32)
    adapted = with_prefix(model, keys_of(model, first, input_ids=first))
    whole = np.concatenate([np.repeat(first, 2, axis=0), ids], axis=1)
    one = answer(adapted, adapted.params, {"input_ids": ids})
    other = answer(model, model.params, {"input_ids": whole})
    np.testing.assert_allclose(one, other[:, 3:], atol=1e-5)
    prompt = {
        "input_ids": ids,
        "attention_mask": np.asarray([[1] * 5, [0, 0, 1, 1, 1]]),
    }
    cached = generate(adapted, prompt, max_new_tokens=4).tokens
    for row, words in ((0, ids[0]), (1, ids[1, 2:])):
        text = {"input_ids": np.concatenate([first[0], words])[None]}
        expected = generate(model, text, max_new_tokens=4).tokens
        np.testing.assert_array_equal(cached[row], expected[0])


@pytest.mark.parametrize("model_type", ["bart", "t5"])
def test_of_two_texts_the_decoder_has_the_prefix(model_type):
    model, batch = table.make_model(model_type, "seq2seq_lm")
    first = np.asarray([WORDS], np.int32)
    row = {name: x[2:3] for name, x in batch.items()}
    encoder = {name: row[name] for name in ("input_ids", "attention_mask")}
    count = model.family.num_encoder_layers(model.module.config)
    hidden = model.module.apply({"params": model.params}, encoder, stop=count + 1)
    cache = {"cache_mask": np.ones((1, 3), bool), "cache_index": np.int32(0)}
    fields = {"decoder_input_ids": first, "attention_mask": row["attention_mask"]}
    _, changed = model.module.apply(
        {"params": model.params},
        {**fields, **cache},
        hidden={"encoder": hidden["encoder"]},
        mutable=["cache"],
    )
    left = adapters.adapters_of({adapters.SUBTREE: changed["cache"]})
    adapted = with_prefix(model, left)
    one = answer(adapted, adapted.params, row)
    for name, fill in (("decoder_input_ids", WORDS), ("decoder_attention_mask", 1)):
        before = np.broadcast_to(np.int32(fill), (1, 3))
        row[name] = np.concatenate([before, row[name]], axis=1)
    other = answer(model, model.params, row)
    np.testing.assert_allclose(one, other[:, 3:], atol=1e-5)


def test_packed_texts_each_look_at_the_prefix():
    model, _ = table.make_model("bert", "token_classification")
    adapted = jft.adapt(
        model, PrefixTuning(num_virtual_tokens=3), key=jax.random.key(0)
    )
    params = table.trained(adapted.params)
    packed = {
        "input_ids": np.asarray([[9, 4, 6, 8, 10]]),
        "segment_ids": np.asarray([[1, 1, 2, 2, 2]]),
        "position_ids": np.asarray([[0, 1, 0, 1, 2]]),
    }
    assert is_packed(packed)
    one = answer(adapted, params, packed)
    apart = [
        answer(adapted, params, {"input_ids": x})
        for x in (packed["input_ids"][:, :2], packed["input_ids"][:, 2:])
    ]
    np.testing.assert_allclose(one, np.concatenate(apart, axis=1), atol=1e-5)
    prompted = with_words(model)
    with pytest.raises(InputError, match="a prompt stands before the one text"):
        answer(prompted, prompted.params, packed)
    config = model.module.config
    assert "token_classification" in adapted.family.packed_heads(config)
    assert prompted.family.packed_heads(config) == ()
    settings = run_config.usual("token_classification", max_length=8)
    with pytest.raises(InputError, match=r"a prompt \(adapter.method\) stands"):
        feed.check_packing(settings, prompted)
    feed.check_packing(settings, adapted)


# --- prompts: what they start as, where they stand ------------------------------------
@pytest.mark.parametrize("model_type", ["gpt2", "t5"])
def test_texts_are_written_behind_a_prompt(model_type):
    """With the cache; beams too."""
    task = {"gpt2": "causal_lm", "t5": "seq2seq_lm"}[model_type]
    model, batch = table.make_model(model_type, task)
    adapted = with_words(model)
    rows = {name: batch[name] for name in ("input_ids", "attention_mask")}
    for options in ({}, {"num_beams": 2}):
        one = generate(adapted, rows, max_new_tokens=4, **options)
        other = generate(model, longer(rows), max_new_tokens=4, **options)
        np.testing.assert_array_equal(one.tokens, other.tokens)


def test_images_have_their_prompt_behind_the_class_token():
    model, batch = table.make_model("vit")
    adapted = jft.adapt(
        model, PromptTuning(num_virtual_tokens=3), key=jax.random.key(0)
    )
    prompt = adapted.params["adapters"]["vit"]["embeddings"]["prompt_embeddings"]
    # Xavier's bound for patches of 4 * 4 * 3 numbers and a width of 16
    bound = (6 / (48 + 16)) ** 0.5
    assert 0.5 * bound < np.abs(prompt).max() <= bound
    tokens = model.prefix_fn(model.params, batch, stop=1)["hidden@1"]
    each = jnp.broadcast_to(prompt, (3, *prompt.shape))
    put = jnp.concatenate([tokens[:, :1], each, tokens[:, 1:]], axis=1)
    expected = model.apply_fn(model.params, {"hidden@1": put}, key=None)
    got = answer(adapted, adapted.params, batch)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_what_a_prompt_starts_as():
    model, _ = table.make_model("bert")
    words = np.asarray(
        model.params["bert"]["embeddings"]["word_embeddings"]["embedding"]
    )

    def start(**settings):
        adapter = PromptTuning(num_virtual_tokens=30, **settings)
        adapted = jft.adapt(model, adapter, key=jax.random.key(0))
        (leaves,) = adapters.adapters_of(adapted.params).values()
        return np.asarray(leaves["prompt_embeddings"])

    np.testing.assert_array_equal(start(), start(prompt_init="vocab"))
    assert all((row == words).all(axis=1).any() for row in start())
    text = start(prompt_init="text", prompt_text=WORDS)
    np.testing.assert_array_equal(text, words[np.asarray(WORDS * 10)])
    normal = start(prompt_init="normal")
    assert abs(normal.std() / words.std() - 1) < 0.1
    read = PromptTuning(prompt_init="text", prompt_text="a b").read_by(Tokenizer())
    assert read.prompt_text == (3, 4)


class Tokenizer:
    """Knows two words."""

    def get_vocab(self):
        return {"a": 3, "b": 4}

    def __call__(self, text):
        return {"input_ids": [self.get_vocab()[word] for word in text.split()]}


@pytest.mark.parametrize(
    ("model_type", "settings", "said"),
    [
        ("bert", {"prompt_init": "text"}, "needs a prompt_text"),
        ("bert", {"prompt_text": "a"}, "needs a prompt_text"),
        ("bert", {"prompt_init": "text", "prompt_text": "a"}, "has no tokenizer"),
        ("bert", {"prompt_init": "text", "prompt_text": (99,)}, "the words 0 to 40"),
        ("vit", {"prompt_init": "vocab"}, "images have no words"),
    ],
)
def test_starts_that_cannot_be_are_refused(model_type, settings, said):
    model, _ = table.make_model(model_type)
    with pytest.raises(InputError, match=said):
        jft.adapt(model, PromptTuning(**settings), key=jax.random.key(0))


@pytest.mark.parametrize("method", [PromptTuning, PrefixTuning])
def test_what_they_cannot(method):
    """They start as the base, are folded, or leave all positions to the text."""
    model, batch = table.make_model("bert")
    adapted = jft.adapt(model, method(num_virtual_tokens=3), key=jax.random.key(0))
    for refuse in (jft.fold, jft.check_foldable):
        with pytest.raises(InputError, match="Tuning adds what no parameter"):
            refuse(adapted)
    most = model.family.max_positions(model.module.config)
    assert adapted.family.max_positions(model.module.config) == most - 3
    ids = np.ones((1, most - 2), np.int32)
    with pytest.raises(InputError, match=f"{most + 1} tokens"):
        adapted.apply_fn(adapted.params, {"input_ids": ids}, key=None)
    before = answer(model, model.params, batch)
    assert np.abs(answer(adapted, adapted.params, batch) - before).max() > 1e-3
