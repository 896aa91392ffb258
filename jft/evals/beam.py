# SPDX-License-Identifier: Apache-2.0
"""Beam search as transformers 5 defines it, all texts and beams in one program.

``M`` is the number of beams. Where a choice is made between equal scores, the first
wins. See transformers' documentation of ``early_stopping`` and ``length_penalty``.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jft.evals.cached import (
    Cache,
    CachedModel,
    Prompt,
    read_prompt,
    read_token,
    written_slots,
)
from jft.evals.decoding import Numbers, Rules
from jft.evals.scores import Written, adjust_scores
from jft.types import Params

NEVER = -1e9  # a score that loses against every text


class Beams(NamedTuple):
    """The search between two steps."""

    step: jax.Array  # [] new tokens of the running beams
    running: jax.Array  # [B, M, S] beams that go on: prompt and new tokens
    running_scores: jax.Array  # [B, M] sums of log-probabilities
    texts: jax.Array  # [B, M, S] the best that have ended, the best first
    scores: jax.Array  # [B, M] of them, divided by length ** length_penalty
    lengths: jax.Array  # [B, M] their new tokens
    is_text: jax.Array  # [B, M] false where fewer than M have ended
    may_improve: jax.Array  # [B, 1] whether a running beam can still get better
    stuck: jax.Array  # [] no beam can go on
    cache: Cache  # of the running beams, [B * M, …]


class Candidates(NamedTuple):
    """The best continuations of a text's beams, ``K`` of them."""

    texts: jax.Array  # [B, K, S]
    scores: jax.Array  # [B, K] sums of log-probabilities
    beams: jax.Array  # [B, K] which beam each continues
    ended: jax.Array  # [B, K]


def search_beams(
    decoder: CachedModel,
    rules: Rules,
    num_new: int,
    params: Params,
    prompt: Prompt,
    numbers: Numbers,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Search until no text can improve.

    Args:
      decoder: the model.
      rules: with ``num_beams``.
      num_new: slots for new tokens; ``numbers.max_new_tokens`` is at most that.
      params: the model's.
      prompt: what the texts start with.
      numbers: settings that are arguments of the program.

    Returns:
      The best texts' new tokens ``[B, num_new]``, their counts and scores ``[B]``.
    """
    width = prompt.tokens.shape[1]

    def goes_on(beams: Beams) -> jax.Array:
        full = beams.is_text.all() if rules.early_stopping is True else False
        return beams.may_improve.any() & ~(beams.stuck | full)

    def advance(beams: Beams) -> Beams:
        running = beams.running.reshape(-1, beams.running.shape[-1])
        logits, cache = read_token(
            decoder, params, prompt, beams.cache, running, step=beams.step
        )
        length = width + beams.step
        real = jnp.repeat(
            written_slots(prompt, num_new, length), rules.num_beams, axis=0
        )
        written = Written(running, real, length, beams.step)
        beams = beams._replace(cache=cache)
        return _advance(beams, logits, written, rules, numbers)

    first = _first_beams(decoder, rules, num_new, params, prompt)
    last = jax.lax.while_loop(goes_on, advance, first)
    return last.texts[:, 0, width:], last.lengths[:, 0], last.scores[:, 0]


def _first_beams(
    decoder: CachedModel, rules: Rules, num_new: int, params: Params, prompt: Prompt
) -> Beams:
    batch, num_beams = prompt.tokens.shape[0], rules.num_beams
    cache = read_prompt(decoder, params, prompt, num_new=num_new)
    texts = jnp.pad(prompt.tokens, ((0, 0), (0, num_new)), constant_values=rules.pad)
    texts = jnp.repeat(texts[:, None], num_beams, axis=1)
    never = jnp.full((batch, num_beams), NEVER, jnp.float32)
    return Beams(
        step=jnp.zeros((), jnp.int32),
        running=texts,
        # all beams are alike: only the first one's continuations count
        running_scores=never.at[:, 0].set(0),
        texts=texts,
        scores=never,
        lengths=jnp.zeros((batch, num_beams), jnp.int32),
        is_text=jnp.zeros((batch, num_beams), bool),
        may_improve=jnp.ones((batch, 1), bool),
        stuck=jnp.zeros((), bool),
        cache=jax.tree.map(lambda x: jnp.repeat(x, num_beams, axis=0), cache),
    )


def _advance(
    beams: Beams, logits: jax.Array, written: Written, rules: Rules, numbers: Numbers
) -> Beams:
    """Write one token to every running beam, given the scores ``[B * M, V]``."""
    found = _best_continuations(beams, logits, written, rules, numbers)
    running_scores = found.scores + _never_where(found.ended)
    _, best = jax.lax.top_k(running_scores, rules.num_beams)
    running_scores = _pick(running_scores, best)
    rows = jnp.arange(best.shape[0])[:, None] * rules.num_beams
    rows = (rows + _pick(found.beams, best)).reshape(-1)
    beams = _collect_texts(beams, found, rules, numbers)
    step = beams.step + 1
    return beams._replace(
        step=step,
        running=_pick(found.texts, best),
        running_scores=running_scores,
        may_improve=_may_improve(beams, running_scores, step, rules, numbers),
        stuck=found.ended.all(),
        cache=jax.tree.map(lambda x: x[rows], beams.cache),
    )


def _best_continuations(
    beams: Beams, logits: jax.Array, written: Written, rules: Rules, numbers: Numbers
) -> Candidates:
    """Find enough continuations for ``num_beams`` of them not to end the text."""
    batch, num_beams, _ = beams.running.shape
    vocabulary = logits.shape[-1]
    scores = adjust_scores(jax.nn.log_softmax(logits), written, rules, numbers)
    scores = scores.reshape(batch, num_beams, vocabulary)
    scores = (scores + beams.running_scores[:, :, None]).reshape(batch, -1)
    num_kept = max(2, 1 + len(rules.eos)) * num_beams
    best, places = jax.lax.top_k(scores, num_kept)
    origins, tokens = places // vocabulary, places % vocabulary
    texts = jax.lax.dynamic_update_slice_in_dim(
        _pick(beams.running, origins), tokens[:, :, None], written.length, axis=2
    )
    ended = jnp.isin(tokens, jnp.asarray(rules.eos, jnp.int32))
    ended = ended | (beams.step + 1 >= numbers.max_new_tokens)
    return Candidates(texts, best, origins, ended)


def _collect_texts(
    beams: Beams, found: Candidates, rules: Rules, numbers: Numbers
) -> Beams:
    """Keep the best of the texts that ended before and those that end now.

    Of the continuations the ``num_beams`` best alone may end a text.
    """
    num_beams, num_kept = rules.num_beams, found.scores.shape[1]
    ended = found.ended & (jnp.arange(num_kept) < num_beams)[None]
    length = beams.step + 1
    scores = found.scores / _length_factor(length, numbers)
    closed = ~beams.may_improve
    if rules.early_stopping is True:
        closed = closed | beams.is_text.all(axis=1, keepdims=True)
    scores = scores + _never_where(closed) + _never_where(~ended)
    _, best = jax.lax.top_k(jnp.concatenate([beams.scores, scores], 1), num_beams)

    def merge(before: jax.Array, now: jax.Array) -> jax.Array:
        return _pick(jnp.concatenate([before, now], axis=1), best)

    return beams._replace(
        texts=merge(beams.texts, found.texts),
        scores=merge(beams.scores, scores),
        lengths=merge(beams.lengths, jnp.broadcast_to(length, ended.shape)),
        is_text=merge(beams.is_text, ended),
    )


def _may_improve(
    beams: Beams,
    running_scores: jax.Array,
    step: jax.Array,
    rules: Rules,
    numbers: Numbers,
) -> jax.Array:
    """Whether the best running beam could beat the worst text: ``[B, 1]``.

    Its score is guessed as if it ended now; under ``early_stopping="never"``, with a
    penalty that favours long texts, as if it ended last.
    """
    length = step
    if rules.early_stopping == "never":
        favours_long = numbers.length_penalty > 0
        length = jnp.where(favours_long, numbers.max_new_tokens, step)
    possible = running_scores[:, :1] / _length_factor(length, numbers)
    worst = beams.scores.min(axis=1, keepdims=True)
    worst = jnp.where(beams.is_text, worst, NEVER)
    return beams.may_improve & (possible > worst).any(axis=1, keepdims=True)


def _length_factor(length: jax.Array, numbers: Numbers) -> jax.Array:
    return length.astype(jnp.float32) ** numbers.length_penalty


def _never_where(condition: jax.Array) -> jax.Array:
    return condition.astype(jnp.float32) * NEVER


def _pick(x: Any, places: jax.Array) -> jax.Array:
    """Take places ``[B, N]`` of the second axis of ``[B, K, …]``."""
    rest = (1,) * (x.ndim - 2)
    return jnp.take_along_axis(x, places.reshape(*places.shape, *rest), axis=1)
