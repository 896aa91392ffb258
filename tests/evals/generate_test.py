# SPDX-License-Identifier: Apache-2.0
"""Texts as transformers writes them; samples by the formula; few programs."""

import dataclasses
import importlib.util
import itertools
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jft.evals import generate
from jft.evals.decoding import read_decoding
from jft.evals.scores import Written, adjust_scores
from jft.models import MODELS
from jft.types import InputError
from tests.evals import generate_peer as cases
from tests.models import peer
from tests.models.table import TABLE

PROGRAM = sys.modules["jft.evals.generate"]._run

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="torch is absent: pip install -e '.[parity]'",
)


# --- as transformers ------------------------------------------------------------------
def check_case(model, task, settings, width, expected, scores):
    batch = cases.make_prompts(task, width)
    written = generate(model, batch, generation_config=settings)
    np.testing.assert_array_equal(written.tokens, expected)
    ends = np.isin(expected, settings["eos_token_id"])
    lengths = np.where(ends.any(1), ends.argmax(1) + 1, expected.shape[1])
    np.testing.assert_array_equal(written.lengths, lengths)
    if scores is None:
        assert written.scores is None
    else:
        np.testing.assert_allclose(written.scores, scores, atol=1e-4)


@pytest.mark.parametrize(
    ("model_type", "task", "name"),
    [(*model, name) for model, names in cases.RECORDED.items() for name in names],
)
def test_tokens_are_those_recorded_of_transformers(model_type, task, name):
    """On machines without torch too; see make_golden.py."""
    recorded = np.load(cases.GOLDEN)
    config, scales = cases.make_config(model_type, task)
    model = cases.make_model(model_type, config, task, scales)
    before = PROGRAM._cache_size()
    for width, num_new in cases.SIZES:
        expected = recorded[f"{model_type}.{name}.{width}.tokens"]
        scores = recorded.get(f"{model_type}.{name}.{width}.scores")
        settings = cases.make_settings(name, config, num_new)
        check_case(model, task, settings, width, expected, scores)
    assert PROGRAM._cache_size() <= before + 1


@needs_torch
@pytest.mark.parametrize(("model_type", "task"), cases.RECORDED)
def test_what_is_recorded_is_what_transformers_writes(model_type, task, tmp_path):
    recorded = np.load(cases.GOLDEN)
    torch_model, model = cases.make_models(model_type, task, tmp_path)
    names = cases.RECORDED[model_type, task]
    for name, (width, num_new) in itertools.product(names, cases.SIZES[1:]):
        settings = cases.make_settings(name, model.config, num_new)
        batch = cases.make_prompts(task, width)
        tokens, scores = cases.torch_generate(torch_model, batch, settings)
        case = f"{model_type}.{name}.{width}"
        np.testing.assert_array_equal(tokens, recorded[f"{case}.tokens"])
        assert (scores is None) == (f"{case}.scores" not in recorded)
        if scores is not None:
            np.testing.assert_allclose(scores, recorded[f"{case}.scores"], atol=1e-4)


@needs_torch
@pytest.mark.parametrize(
    ("model_type", "task"),
    [model for model in cases.language_models() if model not in cases.RECORDED],
)
def test_tokens_are_those_of_transformers(model_type, task, tmp_path):
    """Greedily and by beams, which reorder the cache."""
    torch_model, model = cases.make_models(model_type, task, tmp_path)
    # an encoder-decoder of drawn weights repeats itself, unless it is punished
    beam = "beam" if task == "causal_lm" else "beam, penalties"
    for name, (width, num_new) in itertools.product(["greedy", beam], cases.SIZES[1:]):
        settings = cases.make_settings(name, model.config, num_new)
        batch = cases.make_prompts(task, width)
        expected, scores = cases.torch_generate(torch_model, batch, settings)
        check_case(model, task, settings, width, expected, scores)


# --- a model whose next token depends on the last one alone ---------------------------
@dataclasses.dataclass(frozen=True)
class BigramConfig:
    vocab_size: int


class Bigram(nn.Module):
    """Its one parameter is the scores ``[V, V]`` of what follows each token."""

    config: BigramConfig = BigramConfig(8)
    task: str = "causal_lm"

    def num_layers(self):
        return 0

    def num_encoder_layers(self):
        return 0

    @nn.compact
    def __call__(self, batch, *, hidden=None, stop=None):
        count = len(batch["input_ids"])
        self.variable("cache", "unused", jnp.zeros, (count, 1))
        return self.get_variable("params", "table")[batch["input_ids"]]


def bigram(table, **settings):
    family = dataclasses.replace(
        MODELS["gpt2"],
        make_module=lambda config, task: Bigram(config),
        max_positions=lambda config: 99,
    )
    return SimpleNamespace(
        module=Bigram(BigramConfig(len(table))),
        params={"table": jnp.asarray(table, jnp.float32)},
        family=family,
        config={},
        generation_config=settings,
    )


def prompts_of(*tokens):
    return {"input_ids": np.asarray(tokens)[:, None]}


TABLE_OF_SIX = np.random.default_rng(3).normal(size=(6, 6)) * 1.5


def test_beams_find_the_best_text_of_all():
    """Enough beams forget nothing: against every text of up to four tokens."""
    end, num_new, penalty = 5, 4, 0.7
    log_probs = np.asarray(jax.nn.log_softmax(TABLE_OF_SIX))
    best = (-np.inf, ())
    for text in itertools.product(range(6), repeat=num_new):
        if end in text:
            text = text[: text.index(end) + 1]
        steps = zip((2, *text), text, strict=False)
        score = sum(log_probs[a, b] for a, b in steps) / len(text) ** penalty
        best = max(best, (score, text))
    written = generate(
        bigram(TABLE_OF_SIX, eos_token_id=end),
        prompts_of(2),
        num_beams=6**3,
        max_new_tokens=num_new,
        length_penalty=penalty,
        early_stopping="never",
    )
    assert tuple(written.tokens[0]) == best[1]
    np.testing.assert_allclose(written.scores[0], best[0], rtol=1e-5)


def allowed_by_formula(scores, temperature, top_k, top_p):
    """Probabilities of the tokens that may be sampled; zero for all others."""
    scores = scores / temperature
    scores = np.where(scores < np.sort(scores)[-top_k], -np.inf, scores)
    probs = np.exp(scores - scores.max())
    probs /= probs.sum()
    order = np.argsort(-probs)
    before = np.cumsum(probs[order]) - probs[order]  # mass of the likelier ones
    probs[order[before >= top_p]] = 0
    return probs / probs.sum()


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, 6, 1.0), (0.8, 4, 0.9), (2.0, 5, 0.8)]
)
def test_samples_follow_the_formula(temperature, top_k, top_p):
    count, scores = 4000, TABLE_OF_SIX / 2
    written = generate(
        bigram(scores),
        prompts_of(*[1] * count),
        method="sample",
        key=jax.random.key(0),
        max_new_tokens=2,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
    )
    first = allowed_by_formula(scores[1], temperature, top_k, top_p)
    assert 1 < (first > 0).sum() <= top_k
    after = np.stack(
        [allowed_by_formula(row, temperature, top_k, top_p) for row in scores]
    )
    for drawn, probs in zip(written.tokens.T, (first, first @ after), strict=True):
        shares = np.bincount(drawn, minlength=6) / count
        assert not shares[probs == 0].any()
        np.testing.assert_allclose(shares, probs, atol=4 * 0.5 / count**0.5)


def test_samples_repeat_with_their_key_and_change_without():
    def draw(seed):
        options = {"method": "sample", "max_new_tokens": 9, "key": jax.random.key(seed)}
        return generate(bigram(TABLE_OF_SIX), prompts_of(1, 2), **options).tokens

    np.testing.assert_array_equal(draw(0), draw(0))
    assert (draw(0) != draw(1)).any()


def test_min_p_keeps_what_is_near_the_likeliest():
    settings = {"min_p": 0.3, "do_sample": True}
    decoding = read_decoding(settings, method=None, prompt_width=1)
    none = jnp.zeros((1, 2), jnp.int32)
    empty = Written(none, none > 0, jnp.int32(1), jnp.int32(0))
    probs = np.asarray([[0.5, 0.2, 0.14, 0.16]], np.float32)
    scores = adjust_scores(jnp.log(probs), empty, decoding.rules, decoding.numbers)
    np.testing.assert_array_equal(np.isfinite(scores), [[True, True, False, True]])


# --- ends, padding, programs ----------------------------------------------------------
CYCLE = np.roll(np.eye(6), 1, axis=1)  # after token i comes i + 1


def test_texts_end_at_any_of_the_ends_and_are_padded():
    model = bigram(CYCLE, eos_token_id=[3, 5])
    written = generate(model, prompts_of(1, 3, 4), max_new_tokens=4, pad_token_id=0)
    np.testing.assert_array_equal(written.tokens, [[2, 3], [4, 5], [5, 0]])
    np.testing.assert_array_equal(written.lengths, [2, 2, 1])
    # without a pad_token_id the first end fills
    written = generate(model, prompts_of(1, 4), max_new_tokens=4)
    np.testing.assert_array_equal(written.tokens, [[2, 3], [5, 3]])


def test_what_is_given_wins_over_the_config_of_the_model():
    model = bigram(CYCLE, eos_token_id=3, max_new_tokens=2, num_beams=2)
    assert generate(model, prompts_of(4)).tokens.tolist() == [[5, 0]]
    written = generate(
        model, prompts_of(4), max_new_tokens=3, eos_token_id=0, num_beams=1
    )
    assert written.tokens.tolist() == [[5, 0]]
    assert written.scores is None
    only = {"eos_token_id": 1, "max_length": 9}
    written = generate(model, prompts_of(4), generation_config=only)
    assert written.tokens.tolist() == [[5, 0, 1]]
    old = bigram(CYCLE)
    old.generation_config, old.config = None, {"max_length": 3, "vocab_size": 6}
    assert generate(old, prompts_of(4)).tokens.tolist() == [[5, 0]]


def test_the_loop_ends_with_the_last_text():
    """As many tokens are read as are written, not the bucket of sixteen."""
    steps = []

    def count(table):
        jax.debug.callback(lambda: steps.append(1))
        return table

    class Counting(Bigram):
        def __call__(self, batch, **options):
            return count(super().__call__(batch, **options))

    model = bigram(CYCLE, eos_token_id=5)
    model.module = Counting()
    generate(model, prompts_of(2, 3), max_new_tokens=12)
    jax.effects_barrier()
    assert len(steps) == 1 + 3  # the prompt, then three tokens


@pytest.fixture(scope="module")
def gpt_neox():
    """No table of positions: texts of any length."""
    config = peer.full_config("gpt_neox", TABLE["gpt_neox"], "causal_lm")
    return cases.make_model("gpt_neox", config, "causal_lm", cases.SCALES)


def test_tokens_are_those_of_the_forward_without_a_cache(gpt_neox):
    module, params = gpt_neox.module, gpt_neox.params
    batch = cases.make_prompts("causal_lm", 7)
    written = generate(gpt_neox, batch, max_new_tokens=6)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    apply = jax.jit(lambda batch: module.apply({"params": params}, batch))
    more = np.zeros((len(ids), 6), ids.dtype)
    ids, mask = np.hstack([ids, more]), np.hstack([mask, more])
    for place in range(7, 13):
        positions = np.maximum(np.cumsum(mask, 1) - 1, 0)
        fields = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        ids[:, place] = np.argmax(apply(fields)[:, place - 1], axis=-1)
        mask[:, place] = 1
    np.testing.assert_array_equal(written.tokens, ids[:, 7:])


def test_one_program_for_many_lengths(gpt_neox):
    """Prompts of 3 to 15 tokens, 1 to 16 new ones; numbers are no programs either."""
    rng = np.random.default_rng(0)
    key = jax.random.key(1)

    def run(width, num_new, **options):
        ids = rng.integers(4, 41, (2, width))
        settings = {"max_new_tokens": num_new, "method": "sample", "key": key}
        return generate(gpt_neox, {"input_ids": ids}, **settings, **options)

    run(3, 1, temperature=0.7)
    programs = PROGRAM._cache_size()
    for width in range(3, 16):
        run(width, width + 1, temperature=1 / width)
    assert PROGRAM._cache_size() == programs
    assert run(16, 16, temperature=0.5).tokens.shape == (2, 16)
    assert PROGRAM._cache_size() == programs
    run(17, 16, temperature=0.5)
    assert PROGRAM._cache_size() == programs + 1


def test_padding_may_be_on_either_side(gpt_neox):
    left = cases.make_prompts("causal_lm", 7)
    order = np.argsort(1 - left["attention_mask"], axis=1, kind="stable")
    right = {name: np.take_along_axis(x, order, axis=1) for name, x in left.items()}
    assert (right["attention_mask"] != left["attention_mask"]).any()
    options = {"max_new_tokens": 6}
    np.testing.assert_array_equal(
        generate(gpt_neox, right, **options).tokens,
        generate(gpt_neox, left, **options).tokens,
    )


# --- encoder-decoders -----------------------------------------------------------------
@pytest.fixture(scope="module")
def bart():
    """Twelve positions."""
    config, scales = cases.make_config("bart", "seq2seq_lm")
    return cases.make_model("bart", config, "seq2seq_lm", scales)


def test_an_answer_goes_on_from_its_start(bart):
    batch = cases.make_prompts("seq2seq_lm", 7)
    settings = {"decoder_start_token_id": 2, "no_repeat_ngram_size": 1}

    def write(batch, num_new):
        given = settings | {"max_new_tokens": num_new}
        return generate(bart, batch, generation_config=given).tokens

    whole = write(batch, 6)
    assert len(np.unique(whole)) > 6
    for start in (whole[:, :2], np.hstack([np.full((len(whole), 1), 2), whole[:, :2]])):
        rest = write(batch | {"decoder_input_ids": start}, 4)
        np.testing.assert_array_equal(rest, whole[:, 2:])


def test_a_text_may_be_as_long_as_the_positions_and_its_padding_longer(bart):
    settings = {"decoder_start_token_id": 2, "max_new_tokens": 6}
    ids = np.random.default_rng(0).integers(4, 41, (4, 12))
    mask = np.ones_like(ids)
    expected = generate(bart, {"input_ids": ids, "attention_mask": mask}, **settings)
    more = {"input_ids": np.pad(ids, ((0, 0), (2, 5)))}
    more["attention_mask"] = np.pad(mask, ((0, 0), (2, 5)))
    written = generate(bart, more, **settings)
    np.testing.assert_array_equal(written.tokens, expected.tokens)


@pytest.mark.parametrize(
    ("width", "options", "message"),
    [
        (7, {}, "decoder_start_token_id"),
        (13, {"decoder_start_token_id": 2}, "longest text has 13 tokens"),
        (7, {"decoder_start_token_id": 2}, "max_new_tokens is 20"),
    ],
)
def test_what_an_encoder_decoder_lacks_is_said(bart, width, options, message):
    batch = {"input_ids": np.full((2, width), 5)}
    with pytest.raises(InputError, match=message):
        generate(bart, batch, **options)


def test_starts_of_answers_have_no_padding(bart):
    batch = {"input_ids": np.full((2, 3), 5), "decoder_input_ids": np.full((2, 2), 5)}
    batch["decoder_attention_mask"] = np.asarray([[1, 1], [1, 0]])
    with pytest.raises(InputError, match="without padding"):
        generate(bart, batch, decoder_start_token_id=2)


# --- bad input ------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"typical_p": 0.9, "do_sample": True}, "typical_p"),
        ({"guidance_scale": 2.0}, "guidance_scale"),
        ({"num_return_sequences": 2}, "num_return_sequences"),
        ({"no_such_setting": 1}, "no_such_setting"),
        ({"num_beams": 2, "do_sample": True}, "beams that are sampled"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"max_length": 1}, "max_length counts"),
        ({"top_p": 1.5, "do_sample": True}, "top_p is 1.5"),
        ({"temperature": 0.0, "do_sample": True}, "temperature is 0.0"),
        ({"early_stopping": "soon"}, "early_stopping"),
        ({"eos_token_id": "</s>"}, "eos_token_id"),
        ({"bad_words_ids": [5]}, "bad_words_ids"),
    ],
)
def test_settings_that_cannot_be_honoured_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        generate(bigram(CYCLE), prompts_of(1), generation_config=settings)


def test_neutral_values_of_refused_settings_are_fine():
    settings = {"typical_p": 0.9, "num_return_sequences": 1, "guidance_scale": None}
    settings |= {"diversity_penalty": 0.0, "transformers_version": "5.0.0"}
    decoding = read_decoding(settings, method=None, prompt_width=1)
    assert decoding.rules.method == "greedy"  # typical_p is of sampling


@pytest.mark.parametrize(
    ("batch", "options", "message"),
    [
        ({"input_ids": [[1.5]]}, {}, "input_ids is float64"),
        ({"input_ids": [1, 2]}, {}, "must be whole numbers"),
        ({"pixel_values": [[1]]}, {}, "no input_ids"),
        ({"input_ids": [[1, 2]], "attention_mask": [[1]]}, {}, "attention_mask"),
        ({"input_ids": [[1, 2]], "attention_mask": [[0, 0]]}, {}, r"rows \[0\]"),
        ({"input_ids": [[1]]}, {"method": "sample"}, "needs key"),
        ({"input_ids": [[1]]}, {"method": "beam"}, "num_beams"),
        ({"input_ids": [[1]]}, {"method": "best"}, "method is 'best'"),
        ({"input_ids": [[1]]}, {"temperature": 0.5}, "temperature"),
        ({"input_ids": [[1]]}, {"length_penalty": 0.5}, "length_penalty"),
        ({"input_ids": [[1]]}, {"max_new_tokens": 100}, "99 positions"),
    ],
)
def test_what_does_not_fit_is_said(batch, options, message):
    batch = {name: np.asarray(value) for name, value in batch.items()}
    with pytest.raises(InputError, match=message):
        generate(bigram(CYCLE), batch, **options)


def test_other_heads_write_no_texts():
    config = peer.full_config("gpt2", TABLE["gpt2"], "token_classification")
    model = cases.make_model("gpt2", config, "token_classification")
    with pytest.raises(InputError, match="token_classification"):
        generate(model, prompts_of(1))


@pytest.mark.parametrize(
    ("ids", "settings", "message"),
    [
        ([9], {}, r"input_ids has ids from 9 to 9, .* tokens 0 to 5"),
        ([-1], {}, "input_ids has ids from -1"),
        ([1], {"eos_token_id": [2, 6]}, "eos_token_id has ids from 2 to 6"),
        ([1], {"suppress_tokens": [99]}, "suppress_tokens"),
    ],
)
def test_ids_that_the_model_does_not_know_are_refused(ids, settings, message):
    with pytest.raises(InputError, match=message):
        generate(bigram(np.eye(6), **settings), prompts_of(*ids))


def test_padding_id_of_minus_one_is_none():
    written = generate(bigram(CYCLE, eos_token_id=0, pad_token_id=-1), prompts_of(1, 3))
    assert written.tokens.min() >= 0
