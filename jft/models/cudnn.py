# SPDX-License-Identifier: Apache-2.0
"""Attention by the fused kernel of cuDNN, where that computes what plain XLA does.

The kernel never writes the scores, ``[B, H, L, S]``, to memory, and leaves out what a
causal mask forbids. It runs on NVIDIA GPUs from compute capability 8.0 (Ampere) on, in
float16 and bfloat16. Products and softmax are summed in float32, so results differ from
the plain ones by rounding only, and by what follows.

Dropout of the probabilities stays with XLA: cuDNN's mask is drawn from a seed that is
fixed while compiling, and no key could repeat it. Soft caps, and one query alone, as in
decoding, stay there too.

A query that may look at no key finds the mean of all values; under a causal mask that
is not complete (see `Mask`) cuDNN's mean is of those up to the query. It is padding,
and both are finite.

The kernel's backward pass adds to the queries' gradients in no fixed order; XLA's flag
``--xla_gpu_deterministic_ops=true`` makes it repeat itself bit for bit. The derivative
of a bias is cuDNN's, in the dtype of the queries.

Dao 2023, "FlashAttention-2", arXiv 2307.08691.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jft.models.masks import Mask
from jft.models.remat import Forward
from jft.models.virtual_tokens import Seen
from jft.types import Batch, InputError, Params

Kind = Literal["auto", "xla", "cudnn"]
Capability = tuple[int, int]  # such as (9, 0), Hopper's

OLDEST: Capability = (8, 0)
WIDEST_HEAD, HOPPER, WIDEST_ON_HOPPER = 128, (9, 0), 256
DTYPES = ("float16", "bfloat16")
ALONE = "one query looks alone"


class _Choice(NamedTuple):
    kind: Kind = "xla"
    right_padded: bool = False
    head_shares: int = 1


_USUAL = _Choice()
_CHOICE: ContextVar[_Choice] = ContextVar("attention", default=_USUAL)
_SEEN: ContextVar[set[str | None] | None] = ContextVar("attentions_seen", default=None)


# --- what the caller chooses ----------------------------------------------------------
def with_attention(
    forward_fn: Forward,
    kind: Kind,
    *,
    right_padded: bool = False,
    head_shares: int = 1,
) -> Forward:
    """Let a forward attend by that kernel.

    Args:
      forward_fn: a model's forward, or the part of it below a boundary.
      kind: ``"xla"``, what a forward does anyway: never; ``"auto"``: cuDNN where it
        applies; ``"cudnn"``: or an error that says why not.
      right_padded: promises that padding stands behind each row's text, so that the
        mask can be given as lengths. Masks are else biases, which are slower.
      head_shares: devices of a mesh that share out the heads. The kernel is shared out
        by rows and by heads, those of queries and keys alike.

    Returns:
      The forward. ``"cudnn"`` raises an InputError when it is traced.
    """

    def forward(params: Params, batch: Batch, **options: Any) -> Any:
        token = _CHOICE.set(_Choice(kind, right_padded, head_shares))
        try:
            return forward_fn(params, batch, **options)
        finally:
            _CHOICE.reset(token)

    return forward


def check_attention(kind: Kind, dtype: Any) -> None:
    """Refuse cuDNN on a machine or in a dtype that has none, before anything is traced.

    Raises:
      InputError: says what is missing.
    """
    if kind != "cudnn":
        return
    if why := _refusal_of_machine(cuda_capability()) or _refusal_of_dtype(dtype):
        raise _refused(why)


@contextlib.contextmanager
def attentions_traced() -> Iterator[set[str | None]]:
    """Collect what is traced meanwhile: None for cuDNN, else why it was XLA."""
    seen: set[str | None] = set()
    token = _SEEN.set(seen)
    try:
        yield seen
    finally:
        _SEEN.reset(token)


def describe_attention(seen: set[str | None]) -> str:
    """A line that says by what a traced program attends.

    >>> describe_attention({None, "scores are capped softly"})
    'attention: cuDNN; XLA where scores are capped softly'
    """
    reasons = "; ".join(sorted(why for why in seen if why is not None))
    if None not in seen:
        return f"attention: XLA, as {reasons}" if reasons else "attention: none"
    return f"attention: cuDNN; XLA where {reasons}" if reasons else "attention: cuDNN"


# --- whether it applies ---------------------------------------------------------------
@functools.cache
def cuda_capability() -> Capability | None:
    """Compute capability of the GPU that programs run on; None without GPU or cuDNN."""
    device = jax.local_devices()[0]
    words = str(getattr(device, "compute_capability", "")).split(".")
    if len(words) != 2 or not all(word.isdecimal() for word in words):
        return None  # a CPU, a TPU, or a GPU of AMD
    x = jax.ShapeDtypeStruct((1, 2, 1, 8), jnp.bfloat16)
    try:  # jax knows which cuDNN is installed, and which GPUs it is too old for
        call = functools.partial(jax.nn.dot_product_attention, implementation="cudnn")
        jax.eval_shape(call, x, x, x)
    except (RuntimeError, NotImplementedError):
        return None
    return int(words[0]), int(words[1])


def choose_cudnn(
    query: jax.Array, seen: Seen, *, softcap: float | None, drops: bool
) -> bool:
    """Whether this attention is cuDNN's where its program runs on a GPU.

    Args:
      query: ``[B, L, H, K]``.
      seen: what the queries look at.
      softcap: as in `jft.models.attention.attend`.
      drops: whether probabilities are dropped.

    Raises:
      InputError: if the caller insists on cuDNN, and it does not apply, but for one
        query alone, which has little to compute.
    """
    choice = _CHOICE.get()
    why = "model.attention is 'xla'" if choice.kind == "xla" else None
    why = why or refusal(
        query,
        seen,
        softcap=softcap,
        drops=drops,
        head_shares=choice.head_shares,
        capability=cuda_capability(),
    )
    if (traced := _SEEN.get()) is not None:
        traced.add(why)
    if choice.kind == "cudnn" and why not in (None, ALONE):
        raise _refused(why)
    return why is None


def refusal(
    query: jax.Array,
    seen: Seen,
    *,
    softcap: float | None,
    drops: bool,
    head_shares: int,
    capability: Capability | None,
) -> str | None:
    """Why cuDNN cannot compute this attention and its derivative; None: it can."""
    (_, length, _, width), groups = query.shape, seen.key.shape[2]
    if why := _refusal_of_machine(capability) or _refusal_of_dtype(query.dtype):
        return why
    assert capability is not None
    widest = WIDEST_ON_HOPPER if capability >= HOPPER else WIDEST_HEAD
    if drops:
        return "probabilities of attention drop out, which cuDNN draws otherwise"
    if softcap is not None:
        return "scores are capped softly"
    if width % 8 or width > widest:
        return f"heads are {width} wide; cuDNN takes multiples of 8 up to {widest}"
    if groups % head_shares:
        return f"{head_shares} devices share {groups} heads of keys out"
    if length == 1:
        return ALONE
    return None


def _refusal_of_machine(capability: Capability | None) -> str | None:
    if capability is None:
        return "programs run on no NVIDIA GPU with cuDNN"
    if capability < OLDEST:
        have, need = (".".join(map(str, of)) for of in (capability, OLDEST))
        return f"the GPU has compute capability {have}; cuDNN's attention needs {need}"
    return None


def _refusal_of_dtype(dtype: Any) -> str | None:
    name = jnp.dtype(dtype).name
    return None if name in DTYPES else f"it computes in {name}; cuDNN takes {DTYPES}"


def _refused(why: str) -> InputError:
    return InputError(
        f'attention by cuDNN is asked for, but {why}. Set model.attention to "auto", '
        "which takes cuDNN where it applies, or change that."
    )


# --- what it is given -----------------------------------------------------------------
def attend_fused(query: jax.Array, seen: Seen, *, scale: float) -> jax.Array:
    """`jft.models.attention.attend` by cuDNN, where `choose_cudnn` says so."""
    length, right_padded = query.shape[1], _CHOICE.get().right_padded
    right_padded = right_padded or seen.mask is None
    query, seen = make_even(query, seen)
    given = fused_arguments(query, seen, right_padded=right_padded)
    mixed: jax.Array = jax.nn.dot_product_attention(
        query, seen.key, seen.value, scale=scale, implementation="cudnn", **given
    )
    return mixed[:, :length]


def make_even(query: jax.Array, seen: Seen) -> tuple[jax.Array, Seen]:
    """Put a query, or a key that none looks at, behind an odd number of them.

    Of odd numbers jax refuses the derivative (0.10.2: with a bias or without).
    """
    more, more_keys = query.shape[1] % 2, seen.key.shape[1] % 2

    def behind(x: jax.Array, *counts: int) -> jax.Array:
        return jnp.pad(x, [(0, count) for count in counts])

    mask, bias = seen.mask, seen.bias
    if mask is None and more_keys:
        batch, num_keys = seen.key.shape[:2]
        keys = jnp.ones((batch, num_keys), bool)
        mask = Mask(allowed=keys[:, None, None], keys=keys, complete=True)
    if mask is not None:
        rows = more if mask.allowed.shape[2] > 1 else 0
        allowed = behind(mask.allowed, 0, 0, rows, more_keys)
        of_keys = None if mask.keys is None else behind(mask.keys, 0, more_keys)
        mask = dataclasses.replace(mask, allowed=allowed, keys=of_keys)
    if bias is not None:
        bias = behind(bias, 0, 0, more if bias.shape[2] > 1 else 0, more_keys)
    key, value = (behind(x, 0, more_keys, 0, 0) for x in (seen.key, seen.value))
    return behind(query, 0, more, 0, 0), Seen(key, value, mask, bias)


def fused_arguments(
    query: jax.Array, seen: Seen, *, right_padded: bool
) -> dict[str, Any]:
    """What `jax.nn.dot_product_attention` is given to mask and to bias the scores.

    What is known of a mask where that says all, else the whole mask, and that it is
    causal. A window goes with nothing else: older cuDNN take it without padding only.

    Args:
      query: ``[B, L, H, K]``.
      seen: what the queries look at.
      right_padded: as in `with_attention`.

    Returns:
      Its keyword arguments. A row of padding alone gets the length 1: of none the
      kernel would make no number.
    """
    mask, bias = seen.mask, seen.bias
    if mask is None and bias is None:
        return {}
    given: dict[str, Any] = {} if mask is None else {"is_causal": mask.causal}
    if not _needs_bias(seen, right_padded):
        assert mask is not None
        if mask.window is not None:
            given["local_window_size"] = (mask.window - 1, 0)
        if mask.keys is not None:
            lengths = mask.keys.sum(axis=-1, dtype=jnp.int32)
            given["key_value_seq_lengths"] = jnp.maximum(lengths, 1)
        return given
    plane = (query.shape[1], seen.key.shape[1])
    if bias is not None:
        wide = jnp.broadcast_to(bias, (*bias.shape[:2], *plane))
        given["bias"] = wide.astype(query.dtype)
    if mask is not None and not _is_causal_alone(mask):
        allowed = mask.allowed
        given["mask"] = jnp.broadcast_to(allowed, (*allowed.shape[:2], *plane))
    return given


def _needs_bias(seen: Seen, right_padded: bool) -> bool:
    """Whether the scores must be added to: by a bias, or a mask that is made one."""
    mask = seen.mask
    if seen.bias is not None or mask is None:
        return seen.bias is not None
    if not mask.complete:
        return True
    return mask.keys is not None and (not right_padded or mask.window is not None)


def _is_causal_alone(mask: Mask) -> bool:
    return mask.complete and mask.causal and mask.window is None and mask.keys is None
