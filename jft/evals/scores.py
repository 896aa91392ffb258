# SPDX-License-Identifier: Apache-2.0
"""From a model's scores of the next token to the scores it is chosen by.

Each step is transformers' of the same setting, in its order. ``R`` is the number of
texts that are written at once: the batch, or its beams.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jft.evals.decoding import Numbers, Rules


class Written(NamedTuple):
    """The texts so far, prompt and new tokens."""

    tokens: jax.Array  # [R, S] int32
    real: jax.Array  # [R, S] bool: written, and no padding
    length: jax.Array  # [] slots that are written
    step: jax.Array  # [] new tokens that are written


def adjust_scores(
    scores: jax.Array, written: Written, rules: Rules, numbers: Numbers
) -> jax.Array:
    """Apply every setting that is on to float32 scores ``[R, V]``."""
    if numbers.repetition_penalty is not None:
        scores = _penalise_repeated(scores, written, numbers.repetition_penalty)
    if rules.no_repeat_ngram_size:
        scores = _ban_repeated(scores, written, rules.no_repeat_ngram_size)
    for length in sorted({len(word) for word in rules.bad_words}):
        words = [word for word in rules.bad_words if len(word) == length]
        scores = _ban_last_tokens(scores, written, np.asarray(words, np.int32))
    too_short = written.step < numbers.min_new_tokens
    scores = _without(scores, rules.eos, when=too_short)
    is_first, is_last = written.step == 0, written.step == numbers.max_new_tokens - 1
    if rules.forced_bos is not None:
        forced = is_first & numbers.short_prompt
        scores = jnp.where(forced, _only(scores, (rules.forced_bos,)), scores)
        # what may not come first may not come behind the forced token
        is_first = jnp.where(numbers.short_prompt, written.step == 1, is_first)
    if rules.forced_eos:
        scores = jnp.where(is_last, _only(scores, rules.forced_eos), scores)
    scores = _without(scores, rules.suppressed)
    scores = _without(scores, rules.suppressed_first, when=is_first)
    if rules.method == "sample":
        scores = _narrow(scores, rules, numbers)
    return jax.nn.log_softmax(scores) if rules.renormalize else scores


def _narrow(scores: jax.Array, rules: Rules, numbers: Numbers) -> jax.Array:
    """Temperature, then the tokens that may be sampled."""
    if numbers.temperature is not None:
        scores = scores / numbers.temperature
    if rules.top_k is not None:
        best, _ = jax.lax.top_k(scores, min(rules.top_k, scores.shape[-1]))
        scores = jnp.where(scores < best[:, -1:], -jnp.inf, scores)
    if numbers.top_p is not None:
        scores = _keep_mass(scores, numbers.top_p)
    if numbers.min_p is not None:
        probs = jax.nn.softmax(scores)
        least = numbers.min_p * probs.max(axis=-1, keepdims=True)
        scores = jnp.where(probs < least, -jnp.inf, scores)
    return scores


def _keep_mass(scores: jax.Array, top_p: jax.Array) -> jax.Array:
    """Keep the likeliest tokens whose probabilities reach ``top_p``.

    Holtzman et al. 2019, arXiv 1904.09751.
    """
    order = jnp.argsort(scores, axis=-1)  # the unlikeliest first
    ranked = jnp.take_along_axis(scores, order, axis=-1)
    removed = jnp.cumsum(jax.nn.softmax(ranked), axis=-1) <= 1 - top_p
    removed = removed.at[:, -1].set(False)
    ranks = jnp.argsort(order, axis=-1)
    return jnp.where(jnp.take_along_axis(removed, ranks, axis=-1), -jnp.inf, scores)


def _penalise_repeated(
    scores: jax.Array, written: Written, penalty: jax.Array
) -> jax.Array:
    """Keskar et al. 2019, "CTRL", arXiv 1909.05858."""
    seen = _any_at(scores, written.tokens, written.real)
    penalised = jnp.where(scores < 0, scores * penalty, scores / penalty)
    return jnp.where(seen, penalised, scores)


def _ban_repeated(scores: jax.Array, written: Written, size: int) -> jax.Array:
    """No ``size`` tokens in a row may come twice; padding repeats nothing."""
    count = written.tokens.shape[1] - size + 1  # windows
    if count < 1:
        return scores
    latest = _latest(written, size - 1)
    repeats = (jnp.arange(count) + size <= written.length)[None]
    for i in range(size):
        repeats = repeats & written.real[:, i : i + count]
    for i in range(size - 1):
        repeats = repeats & (written.tokens[:, i : i + count] == latest[:, i : i + 1])
    banned = _any_at(scores, written.tokens[:, size - 1 :], repeats)
    return jnp.where(banned, -jnp.inf, scores)


def _ban_last_tokens(
    scores: jax.Array, written: Written, words: np.ndarray
) -> jax.Array:
    """The last token of a word ``[N, length]`` may not follow the others."""
    before = words.shape[1] - 1
    latest = _latest(written, before)[:, None] == jnp.asarray(words[:, :-1])[None]
    follows = latest.all(axis=-1) & (written.length >= before)
    last = jnp.broadcast_to(jnp.asarray(words[:, -1])[None], follows.shape)
    return jnp.where(_any_at(scores, last, follows), -jnp.inf, scores)


def _latest(written: Written, count: int) -> jax.Array:
    """The last tokens, ``[R, count]``; their count must be there."""
    start = written.length - count
    return jax.lax.dynamic_slice_in_dim(written.tokens, start, count, axis=1)


def _any_at(scores: jax.Array, tokens: jax.Array, marked: jax.Array) -> jax.Array:
    """Which of the vocabulary is a marked token of its row: ``[R, V]``."""
    rows = jnp.arange(scores.shape[0])[:, None]
    return jnp.zeros(scores.shape, bool).at[rows, tokens].max(marked)


def _without(
    scores: jax.Array, ids: Sequence[int], when: jax.Array | bool = True
) -> jax.Array:
    if not ids:
        return scores
    columns = jnp.asarray(ids)
    return scores.at[:, columns].set(jnp.where(when, -jnp.inf, scores[:, columns]))


def _only(scores: jax.Array, ids: Sequence[int]) -> jax.Array:
    return jnp.full_like(scores, -jnp.inf).at[:, jnp.asarray(ids)].set(0)
