# SPDX-License-Identifier: Apache-2.0
"""Write texts with a language model: greedily, by sampling, or by beam search.

Prompts and new tokens are padded to a few lengths, so that one compiled program serves
many: the loop over new tokens ends as soon as every text has.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jft.evals.beam import search_beams
from jft.evals.cached import (
    Cache,
    CachedModel,
    Prompt,
    read_prompt,
    read_token,
    written_slots,
)
from jft.evals.decoding import (
    BEAM,
    GENERATING,
    SAMPLING,
    SETTINGS,
    Decoding,
    Numbers,
    Rules,
    read_decoding,
)
from jft.evals.scores import Written, adjust_scores
from jft.models import Family
from jft.params.adapters import Mixed
from jft.types import Batch, InputError, Params

SMALLEST_BUCKET = 16  # lengths are padded to this, or to the next power of two


class Generated(NamedTuple):
    """The new tokens, without the prompts."""

    tokens: np.ndarray  # [B, N] int32; N is the longest text's, the rest is padding
    lengths: np.ndarray  # [B] tokens of each text, its end included
    scores: np.ndarray | None  # [B] of beams: log-probability / length ** penalty


def generate(
    model: Any,
    batch: Batch,
    *,
    method: str | None = None,
    max_new_tokens: int | None = None,
    min_new_tokens: int | None = None,
    key: jax.Array | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    num_beams: int | None = None,
    length_penalty: float | None = None,
    early_stopping: bool | str | None = None,
    eos_token_id: int | list[int] | None = None,
    pad_token_id: int | None = None,
    decoder_start_token_id: int | None = None,
    forced_bos_token_id: int | None = None,
    forced_eos_token_id: int | list[int] | None = None,
    generation_config: Mapping[str, Any] | None = None,
) -> Generated:
    """Continue prompts, or answer texts with an encoder-decoder, as transformers would.

    Greedy search and beam search give transformers' tokens. Settings given here win
    over those of ``generation_config``, which has more: ``min_p``,
    ``repetition_penalty``, ``no_repeat_ngram_size``, ``bad_words_ids``,
    ``suppress_tokens``, ``begin_suppress_tokens``, ``renormalize_logits``,
    ``max_length`` and ``min_length``. What it has and jft does not honour is an error.

    One program is compiled for each batch size, method, and length of prompt and of new
    tokens, both padded to a power of two, at least 16.

    Args:
      model: what ``jft.load`` returned; in training ``model._replace(params=…)``.
      batch: ``input_ids [B, L]`` and ``attention_mask [B, L]``, padded on either side
        (without a mask no token is padding); for an encoder-decoder optionally
        ``decoder_input_ids [B, M]``, what its answers start with; and for the model
        of several adapters ``adapter_ids [B]``. Other fields are not read.
      method: ``"greedy"``, ``"sample"`` or ``"beam"``; None is ``"beam"`` where
        ``num_beams`` is above 1, then ``"sample"`` where the config has ``do_sample``.
      max_new_tokens: the most tokens of a text; 20 where nothing says how many.
      min_new_tokens: a text does not end before.
      key: draws the samples; consumed.
      temperature: divides the scores before sampling.
      top_k: sample among that many tokens, the likeliest; None among all.
      top_p: sample among the likeliest tokens that have this probability together.
      num_beams: texts that are followed at once.
      length_penalty: above 0 favours long texts.
      early_stopping: True stops at ``num_beams`` ended texts, False when no better
        one is likely, ``"never"`` when none is possible.
      eos_token_id: ends a text; one or several.
      pad_token_id: fills up texts that have ended; None is the first ``eos_token_id``.
      decoder_start_token_id: what an encoder-decoder's answers start with.
      forced_bos_token_id: the first new token of an answer, such as its language.
      forced_eos_token_id: the last token, where a text has ``max_new_tokens``.
      generation_config: by transformers' names; None is the model's own, or what
        its config.json has of it.

    Returns:
      The new tokens on the host.

    Raises:
      InputError: if the model writes no text, a setting is not supported or out of
        range, or the batch does not fit.
    """
    decoder, params, family, defaults = _read_model(model)
    given = {
        "max_new_tokens": max_new_tokens,
        "min_new_tokens": min_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "num_beams": num_beams,
        "length_penalty": length_penalty,
        "early_stopping": early_stopping,
        "eos_token_id": eos_token_id,
        "pad_token_id": pad_token_id,
        "decoder_start_token_id": decoder_start_token_id,
        "forced_bos_token_id": forced_bos_token_id,
        "forced_eos_token_id": forced_eos_token_id,
    }
    given = {name: value for name, value in given.items() if value is not None}
    settings = {**(defaults if generation_config is None else generation_config)}
    settings |= given
    most = family.max_positions(decoder.module.config)
    prompt, width = _make_prompt(decoder, batch, settings, most)
    decoding = read_decoding(settings, method=method, prompt_width=width)
    adapter = getattr(decoder.module, "adapter", None)
    if isinstance(adapter, Mixed) and "adapter_ids" in batch:
        ids = adapter.check_ids(batch["adapter_ids"], num_rows=len(prompt.tokens))
        prompt = prompt._replace(adapter_ids=ids)
    _check_vocabulary(decoder.module.config, batch, settings)
    _check_given(given, decoding, key)
    _check_length(prompt, decoding, most)
    num_new = _bucket(int(decoding.numbers.max_new_tokens))
    key = key if decoding.rules.method == "sample" else None
    program_args = (params, prompt, decoding.numbers, key)
    tokens, lengths, scores = jax.device_get(
        _run(decoder, decoding.rules, num_new, *program_args)
    )
    return Generated(tokens[:, : lengths.max()], lengths, scores)


@partial(jax.jit, static_argnames=("decoder", "rules", "num_new"))
def _run(
    decoder: CachedModel,
    rules: Rules,
    num_new: int,
    params: Params,
    prompt: Prompt,
    numbers: Numbers,
    key: jax.Array | None,
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """The program: new tokens ``[B, num_new]``, lengths and scores ``[B]``."""
    if rules.method == "beam":
        return search_beams(decoder, rules, num_new, params, prompt, numbers)
    tokens, lengths = _write(decoder, rules, num_new, params, prompt, numbers, key)
    return tokens, lengths, None


class _Texts(NamedTuple):
    step: jax.Array  # [] new tokens that are written
    tokens: jax.Array  # [B, S] prompt and new tokens
    lengths: jax.Array  # [B] new tokens of each text
    ended: jax.Array  # [B]
    cache: Cache


def _write(
    decoder: CachedModel,
    rules: Rules,
    num_new: int,
    params: Params,
    prompt: Prompt,
    numbers: Numbers,
    key: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """Choose one token after the other."""
    batch, width = prompt.tokens.shape
    eos = jnp.asarray(rules.eos, jnp.int32)

    def advance(texts: _Texts) -> _Texts:
        logits, cache = read_token(
            decoder, params, prompt, texts.cache, texts.tokens, step=texts.step
        )
        length = width + texts.step
        real = written_slots(prompt, num_new, length)
        written = Written(texts.tokens, real, length, texts.step)
        scores = adjust_scores(logits, written, rules, numbers)
        if key is None:
            token = scores.argmax(axis=-1).astype(jnp.int32)
        else:
            step_key = jax.random.fold_in(key, texts.step)
            token = jax.random.categorical(step_key, scores).astype(jnp.int32)
        token = jnp.where(texts.ended, rules.pad, token)
        step = texts.step + 1
        return _Texts(
            step=step,
            tokens=texts.tokens.at[:, length].set(token),
            lengths=jnp.where(texts.ended, texts.lengths, step),
            ended=texts.ended | jnp.isin(token, eos) | (step >= numbers.max_new_tokens),
            cache=cache,
        )

    def goes_on(texts: _Texts) -> jax.Array:
        return ~texts.ended.all()

    first = _Texts(
        step=jnp.zeros((), jnp.int32),
        tokens=jnp.pad(
            prompt.tokens, ((0, 0), (0, num_new)), constant_values=rules.pad
        ),
        lengths=jnp.zeros(batch, jnp.int32),
        ended=jnp.zeros(batch, bool),
        cache=read_prompt(decoder, params, prompt, num_new=num_new),
    )
    texts = jax.lax.while_loop(goes_on, advance, first)
    return texts.tokens[:, width:], texts.lengths


# --- what is given --------------------------------------------------------------------
def _read_model(model: Any) -> tuple[CachedModel, Params, Family, Mapping[str, Any]]:
    """Return the module's record, its numbers, its family and its settings."""
    module, family, defaults = model.module, model.family, model.generation_config
    if defaults is None:
        known = model.config
        defaults = {name: known[name] for name in SETTINGS if name in known}
    if module.task not in GENERATING:
        raise InputError(
            f"the model's head is for {module.task!r}; texts are written by the heads "
            "'causal_lm' and 'seq2seq_lm'."
        )
    config = module.config
    decoder = CachedModel(
        module, family.num_layers(config), family.num_encoder_layers(config)
    )
    return decoder, model.params, family, defaults


def _make_prompt(
    decoder: CachedModel, batch: Batch, settings: Mapping[str, Any], most: int | None
) -> tuple[Prompt, int]:
    """Pad the texts to a bucket; return also how wide the prompts were.

    An encoder's texts have at most ``most`` tokens, padding included.
    """
    ids, mask = _read_texts(batch, "input_ids", "attention_mask")
    if not decoder.num_encoder_layers:
        if not mask.any(axis=1).all():
            empty = np.flatnonzero(~mask.any(axis=1)).tolist()
            raise InputError(
                f"the prompts of rows {empty} have no token; give each one to go on "
                "from."
            )
        tokens, mask_left = _pad(ids, mask, _bucket(ids.shape[1]), left=True)
        return Prompt(tokens, mask_left, {}), ids.shape[1]
    length = int(mask.sum(axis=1).max())
    if most is not None and length > most:
        raise InputError(
            f"the longest text has {length} tokens, but the model has {most} "
            "positions; shorten the texts."
        )
    length = _bucket(ids.shape[1])
    length = length if most is None else min(length, most)
    ids, mask = _pad(ids, mask, length, left=False)
    encoder = {"input_ids": ids, "attention_mask": mask.astype(np.int32)}
    tokens = _start_of_answers(batch, settings, len(ids))
    return Prompt(tokens, np.ones_like(tokens, bool), encoder), tokens.shape[1]


# settings that name tokens
TOKENS = (
    "eos_token_id", "decoder_start_token_id", "forced_bos_token_id",
    "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens",
)  # fmt: skip


def _check_vocabulary(config: Any, batch: Batch, settings: Mapping[str, Any]) -> None:
    """Refuse ids that the model has no row for."""
    written = getattr(config, "target_vocab_size", config.vocab_size)
    named = [(name, settings.get(name), written) for name in TOKENS]
    real = np.asarray(batch.get("attention_mask", 1)) > 0
    ids = np.where(real, batch.get("input_ids", 0), 0)
    for name, given, rows in [("input_ids", ids, config.vocab_size), *named]:
        values = np.atleast_1d([] if given is None else given)
        if values.size and not 0 <= values.min() <= values.max() < rows:
            raise InputError(
                f"{name} has ids from {values.min()} to {values.max()}, but the model "
                f"knows the tokens 0 to {rows - 1}. Use its own tokenizer and settings."
            )


def _read_texts(batch: Batch, ids_name: str, mask_name: str) -> tuple[Any, Any]:
    if ids_name not in batch:
        raise InputError(
            f"the batch has no {ids_name}; its fields are {sorted(batch)}."
        )
    ids = np.asarray(batch[ids_name])
    mask = np.asarray(batch.get(mask_name, np.ones(ids.shape, bool))) > 0
    if ids.ndim != 2 or 0 in ids.shape or not np.issubdtype(ids.dtype, np.integer):
        raise InputError(
            f"{ids_name} is {ids.dtype}{list(ids.shape)}; it must be whole numbers "
            "[B, L], one text or more."
        )
    if mask.shape != ids.shape:
        raise InputError(
            f"{mask_name} is {list(mask.shape)}, but {ids_name} is {list(ids.shape)}; "
            "give one number a token."
        )
    return ids.astype(np.int32), mask


def _pad(ids: Any, mask: Any, length: int, *, left: bool) -> tuple[Any, Any]:
    """Move the real tokens to one side, and make all texts that long."""
    order = np.argsort(mask if left else ~mask, axis=1, kind="stable")
    ids = np.where(mask, ids, 0)
    ids, mask = (np.take_along_axis(x, order, axis=1) for x in (ids, mask))
    more = max(0, length - ids.shape[1])
    sides = ((0, 0), (more, 0) if left else (0, more))
    ids, mask = np.pad(ids, sides), np.pad(mask, sides)
    return (ids, mask) if left else (ids[:, :length], mask[:, :length])


def _start_of_answers(
    batch: Batch, settings: Mapping[str, Any], num_texts: int
) -> np.ndarray:
    """What an encoder-decoder's answers start with, ``[B, M]``."""
    start = settings.get("decoder_start_token_id")
    start = settings.get("bos_token_id") if start is None else start
    if not isinstance(start, int):
        raise InputError(
            f"decoder_start_token_id is {start!r}; an encoder-decoder needs the id "
            "that its answers start with."
        )
    column = np.full((num_texts, 1), start, np.int32)
    if "decoder_input_ids" not in batch:
        return column
    ids, mask = _read_texts(batch, "decoder_input_ids", "decoder_attention_mask")
    if not mask.all() or len(ids) != num_texts:
        raise InputError(
            f"decoder_input_ids {list(ids.shape)} must be one start for each of the "
            f"{num_texts} texts, without padding."
        )
    starts: np.ndarray = ids
    if (ids[:, 0] != start).all():
        starts = np.concatenate([column, ids], axis=1)
    return starts


def _check_given(
    given: Mapping[str, Any], decoding: Decoding, key: jax.Array | None
) -> None:
    """Refuse settings that the method does not look at, and samples without a key."""
    method = decoding.rules.method
    others = {"greedy": SAMPLING | BEAM, "sample": BEAM, "beam": SAMPLING}[method]
    if unused := sorted(
        name
        for name in given.keys() & others
        if (name, given[name]) != ("num_beams", 1)
    ):
        raise InputError(f"{unused} are given, but the method is {method!r}.")
    if method == "sample" and key is None:
        raise InputError(
            "the method is 'sample', which needs key=jax.random.key(seed); or choose "
            "method='greedy'."
        )


def _check_length(prompt: Prompt, decoding: Decoding, most: int | None) -> None:
    """Refuse texts that outgrow a table of positions."""
    longest = int(np.asarray(prompt.attention_mask).sum(axis=1).max())
    num_new = int(decoding.numbers.max_new_tokens)
    if most is not None and longest + num_new - 1 > most:
        raise InputError(
            f"the longest prompt has {longest} tokens and max_new_tokens is {num_new}, "
            f"but the model has {most} positions; shorten the prompts or the texts."
        )


def _bucket(length: int) -> int:
    """The padded length: a power of two."""
    return max(SMALLEST_BUCKET, 1 << (length - 1).bit_length())
