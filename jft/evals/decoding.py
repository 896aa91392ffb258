# SPDX-License-Identifier: Apache-2.0
"""How tokens are chosen: the settings of a generation_config.json, checked.

Names and meanings are transformers'. Settings that this package does not honour are an
error that names them, never ignored.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jft.types import InputError

GENERATING = ("causal_lm", "seq2seq_lm")  # the heads that write texts
METHODS = ("greedy", "sample", "beam")
DEFAULT_NEW_TOKENS = 20  # transformers' own, where nothing says how many


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a program is compiled for."""

    method: str
    num_beams: int = 1
    early_stopping: bool | str = False  # or "never"
    eos: tuple[int, ...] = ()  # any of them ends a text
    pad: int = 0  # fills the places behind the end
    forced_bos: int | None = None  # the first token behind a prompt of one token
    forced_eos: tuple[int, ...] = ()  # the last of max_new_tokens
    top_k: int | None = None
    no_repeat_ngram_size: int = 0
    bad_words: tuple[tuple[int, ...], ...] = ()
    suppressed: tuple[int, ...] = ()
    suppressed_first: tuple[int, ...] = ()
    renormalize: bool = False


class Numbers(NamedTuple):
    """What a compiled program takes as arguments; None leaves the step out."""

    max_new_tokens: Any  # int32 []
    min_new_tokens: Any  # int32 []
    short_prompt: Any  # bool []: the prompt is one token
    length_penalty: Any  # float32 []
    temperature: Any = None  # float32 []
    top_p: Any = None
    min_p: Any = None
    repetition_penalty: Any = None


class Decoding(NamedTuple):
    """All settings of one call."""

    rules: Rules
    numbers: Numbers


# settings that change nothing about which tokens are chosen
HARMLESS = frozenset({
    "_from_model_config", "assistant_confidence_threshold", "assistant_early_exit",
    "assistant_ensemble_weight", "assistant_lookbehind", "bos_token_id",
    "cache_config", "cache_implementation", "compile_config",
    "continuous_batching_config", "decoder_start_token_id", "disable_compile",
    "is_assistant", "max_cache_len", "max_matching_ngram_size",
    "num_assistant_tokens", "num_assistant_tokens_schedule", "output_attentions",
    "output_hidden_states", "output_logits", "output_scores", "prefill_chunk_size",
    "return_dict_in_generate", "speculation_type", "target_lookbehind",
    "transformers_version", "trust_remote_code", "use_cache",
})  # fmt: skip
# settings that are refused -> the values at which they do nothing
REFUSED: Mapping[str, tuple[Any, ...]] = {
    "constraints": (),
    "diversity_penalty": (0.0,),
    "dola_layers": (),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1.0,),
    "exponential_decay_length_penalty": (),
    "force_words_ids": (),
    "forced_decoder_ids": (),
    "guidance_scale": (1.0,),
    "low_memory": (False,),
    "max_time": (),
    "num_beam_groups": (1,),
    "num_return_sequences": (1,),
    "penalty_alpha": (0.0,),
    "prompt_lookup_num_tokens": (),
    "remove_invalid_values": (False,),
    "sequence_bias": (),
    "stop_strings": (),
    "token_healing": (False,),
    "use_mtp": (False,),
    "watermarking_config": (),
}
# as above, but looked at only while sampling
REFUSED_SAMPLING: Mapping[str, tuple[Any, ...]] = {
    "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
    "top_h": (),
    "typical_p": (1.0,),
}
SAMPLING = frozenset({"temperature", "top_k", "top_p", "min_p"})
BEAM = frozenset({"num_beams", "length_penalty", "early_stopping"})
HONOURED = SAMPLING | BEAM | {
    "bad_words_ids", "begin_suppress_tokens", "do_sample", "eos_token_id",
    "forced_bos_token_id", "forced_eos_token_id", "max_length", "max_new_tokens",
    "min_length", "min_new_tokens", "no_repeat_ngram_size", "pad_token_id",
    "renormalize_logits", "repetition_penalty", "suppress_tokens",
}  # fmt: skip
CHOOSING = HONOURED | REFUSED.keys() | REFUSED_SAMPLING.keys()
SETTINGS = CHOOSING | HARMLESS


def read_decoding(
    settings: Mapping[str, Any], *, method: str | None, prompt_width: int
) -> Decoding:
    """Read and check the settings; what is absent or None has transformers' default.

    One default differs: without ``top_k`` all tokens may be sampled, not 50.

    Args:
      settings: by the names of generation_config.json; a ``pad_token_id`` of -1 is
        none.
      method: a key of ``METHODS``; None is what ``num_beams`` and ``do_sample`` say.
      prompt_width: tokens before the first new one, padding included; ``max_length``
        and ``min_length`` count them.

    Raises:
      InputError: names the setting that is not known, not honoured, or out of range.

    >>> read_decoding({"num_beams": 4}, method=None, prompt_width=1).rules.method
    'beam'
    """
    given = {name: value for name, value in settings.items() if value is not None}
    if given.get("pad_token_id") == -1:  # original Llama conversions have none
        del given["pad_token_id"]
    if unknown := sorted(given.keys() - SETTINGS):
        raise InputError(
            f"generation settings {unknown} are not known; known are "
            f"{sorted(HONOURED)}."
        )
    method = _read_method(given, method)
    _refuse(given, REFUSED)
    if method == "sample":
        _refuse(given, REFUSED_SAMPLING)
    return Decoding(
        _read_rules(given, method),
        _read_numbers(given, method, prompt_width),
    )


def _read_method(given: Mapping[str, Any], method: str | None) -> str:
    num_beams = _whole(given, "num_beams", 1, least=1)
    if method is None:
        if num_beams > 1 and given.get("do_sample"):
            raise InputError(
                f"num_beams is {num_beams} and do_sample true: beams that are sampled "
                f"are not supported. Choose one method of {METHODS}."
            )
        if num_beams > 1:
            return "beam"
        return "sample" if given.get("do_sample") else "greedy"
    if method not in METHODS:
        raise InputError(f"method is {method!r}; it must be one of {METHODS}.")
    if method == "beam" and num_beams < 2:
        raise InputError("method='beam' needs num_beams, 2 or more.")
    return method


def _refuse(given: Mapping[str, Any], refused: Mapping[str, Collection[Any]]) -> None:
    found = {n: given[n] for n in refused if n in given and given[n] not in refused[n]}
    if found:
        raise InputError(
            f"generation settings {found} are not supported; remove them, or pass a "
            "generation_config without them."
        )


def _read_rules(given: Mapping[str, Any], method: str) -> Rules:
    eos = _ids(given, "eos_token_id")
    bad_words = given.get("bad_words_ids", ())
    if not all(isinstance(word, list | tuple) and word for word in bad_words):
        raise InputError(
            f"bad_words_ids is {bad_words!r}; it must be a list of lists of token ids."
        )
    words = [_ids({"bad_words_ids": list(word)}, "bad_words_ids") for word in bad_words]
    stopping = given.get("early_stopping", False)
    if stopping not in (False, True, "never"):
        raise InputError(
            f"early_stopping is {stopping!r}; it must be false, true or 'never'."
        )
    top_k = _whole(given, "top_k", 0)
    return Rules(
        method=method,
        num_beams=int(given["num_beams"]) if method == "beam" else 1,
        early_stopping=stopping if method == "beam" else False,
        eos=eos,
        pad=_whole(given, "pad_token_id", eos[0] if eos else 0),
        forced_bos=next(iter(_ids(given, "forced_bos_token_id")), None),
        forced_eos=_ids(given, "forced_eos_token_id"),
        top_k=top_k if method == "sample" and top_k > 0 else None,
        no_repeat_ngram_size=_whole(given, "no_repeat_ngram_size", 0),
        # the end of a text alone is never a bad word
        bad_words=tuple(w for w in words if len(w) > 1 or w[0] not in eos),
        suppressed=_ids(given, "suppress_tokens"),
        suppressed_first=_ids(given, "begin_suppress_tokens"),
        renormalize=bool(given.get("renormalize_logits", False)),
    )


def _read_numbers(given: Mapping[str, Any], method: str, prompt_width: int) -> Numbers:
    most = _whole(given, "max_new_tokens", 0)
    if "max_new_tokens" not in given:
        default = prompt_width + DEFAULT_NEW_TOKENS
        most = _whole(given, "max_length", default) - prompt_width
    if most < 1:
        raise InputError(
            f"max_new_tokens is {most}; it must be 1 or more (max_length counts the "
            f"{prompt_width} tokens of the prompt, padding included)."
        )
    least = _whole(given, "min_length", 0) - prompt_width
    least = _whole(given, "min_new_tokens", max(least, 0))
    sampling: dict[str, Any] = {}
    if method == "sample":
        sampling = {
            "temperature": _off_at(1.0, _number(given, "temperature", 1.0, above=0.0)),
            "top_p": _off_at(1.0, _number(given, "top_p", 1.0, above=0.0, most=1.0)),
            "min_p": _off_at(0.0, _number(given, "min_p", 0.0, most=1.0)),
        }
    penalty = _number(given, "repetition_penalty", 1.0, above=0.0)
    return Numbers(
        max_new_tokens=np.int32(most),
        min_new_tokens=np.int32(least),
        short_prompt=np.bool_(prompt_width == 1),
        length_penalty=np.float32(_number(given, "length_penalty", 1.0, least=None)),
        repetition_penalty=_off_at(1.0, penalty),
        **sampling,
    )


def _off_at(neutral: float, value: float) -> Any:
    return None if value == neutral else np.float32(value)


def _whole(given: Mapping[str, Any], name: str, default: int, least: int = 0) -> int:
    value = given.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InputError(f"{name} is {value!r}; it must be a whole number.")
    if value < least:
        raise InputError(f"{name} is {value}; it must be {least} or more.")
    return int(value)


def _number(
    given: Mapping[str, Any],
    name: str,
    default: float,
    *,
    least: float | None = 0.0,
    above: float | None = None,
    most: float | None = None,
) -> float:
    value = given.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise InputError(f"{name} is {value!r}; it must be a number.")
    too_small = least is not None and value < least
    too_small |= above is not None and value <= above
    if too_small or (most is not None and value > most):
        bounds = f"above {above}" if above is not None else f"at least {least}"
        upper = "" if most is None else f" and at most {most}"
        raise InputError(f"{name} is {value}; it must be {bounds}{upper}.")
    return float(value)


def _ids(given: Mapping[str, Any], name: str) -> tuple[int, ...]:
    """Token ids of a setting that is one id or a list of them."""
    value = given.get(name, ())
    listed = value if isinstance(value, list | tuple) else (value,)
    return tuple(_whole({name: token}, name, 0) for token in listed)
