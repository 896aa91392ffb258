# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedules: step to value, each with a linear warm-up.

During warm-up of ``w`` steps the value is ``peak * t / w``, so 0 at step 0. Beyond
``num_steps`` every schedule keeps its last value.
"""

import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jft.types import InputError, Params, Schedule


def make_constant(peak: float, *, num_steps: int, warmup_steps: int = 0) -> Schedule:
    """Make ``peak`` after warm-up, whatever the number of steps.

    >>> float(make_constant(0.1, num_steps=10)(5)) == 0.1
    True
    """
    del num_steps
    return _warmed_up(optax.constant_schedule(peak), peak, warmup_steps)


def make_linear(
    peak: float, *, num_steps: int, warmup_steps: int = 0, end_fraction: float = 0.0
) -> Schedule:
    """Make a straight line from ``peak`` after warm-up to ``end_fraction * peak``."""
    main = optax.linear_schedule(peak, peak * end_fraction, num_steps - warmup_steps)
    return _warmed_up(main, peak, warmup_steps)


def make_cosine(
    peak: float, *, num_steps: int, warmup_steps: int = 0, end_fraction: float = 0.0
) -> Schedule:
    """Make half a cosine from ``peak`` after warm-up to ``end_fraction * peak``.

    ``peak * (e + (1 - e) * (1 + cos(pi * s)) / 2)``, ``s`` from 0 to 1 after warm-up.
    Loshchilov and Hutter 2017 (SGDR), without restarts.
    """
    main = optax.cosine_decay_schedule(peak, num_steps - warmup_steps, end_fraction)
    return _warmed_up(main, peak, warmup_steps)


def make_rsqrt(
    peak: float, *, num_steps: int, warmup_steps: int = 0, timescale: int | None = None
) -> Schedule:
    """Make ``peak / sqrt(1 + (t - w) / timescale)`` after warm-up of ``w`` steps.

    With ``timescale`` = ``w``, the default, this is ``peak * sqrt(w / t)``: the
    transformer's schedule (Vaswani et al. 2017). Zhai et al. 2022 take 10,000.

    Raises:
      InputError: if there is neither warm-up nor a timescale.
    """
    del num_steps
    scale = timescale or warmup_steps
    if scale < 1:
        raise InputError(
            "schedule 'rsqrt' got neither warmup_steps nor timescale; give one of them."
        )

    def main(step: Any) -> Any:
        # The warm-up evaluates this too, at negative steps, and discards it.
        return peak / jnp.sqrt(1 + jnp.maximum(step, 0) / scale)

    return _warmed_up(main, peak, warmup_steps)


def make_one_cycle(
    peak: float,
    *,
    num_steps: int,
    warmup_steps: int = 0,
    warmup_fraction: float = 0.3,
    start_divisor: float = 25.0,
    end_divisor: float = 1e4,
) -> Schedule:
    """Make a cosine from ``peak / start_divisor`` up to ``peak``, then down.

    It ends at ``peak / (start_divisor * end_divisor)``. The rise takes
    ``warmup_steps``, or ``warmup_fraction`` of the run where that is 0.
    Smith and Topin 2018 (super-convergence).
    """
    return optax.cosine_onecycle_schedule(
        num_steps,
        peak,
        pct_start=warmup_steps / num_steps if warmup_steps else warmup_fraction,
        div_factor=start_divisor,
        final_div_factor=end_divisor,
    )


def make_slanted_triangular(
    peak: float,
    *,
    num_steps: int,
    warmup_steps: int = 0,
    cut_frac: float = 0.1,
    ratio: float = 32.0,
) -> Schedule:
    """Make ULMFiT's slanted triangle: a short rise, a long fall.

    With ``T`` = ``num_steps``, as in Howard and Ruder 2018, section 3.2::

      cut = floor(T * cut_frac)
      p   = t / cut                                       if t < cut
            1 - (t - cut) / (cut * (1 / cut_frac - 1))    otherwise
      lr  = peak * (1 + p * (ratio - 1)) / ratio

    Where rounding ``cut`` down would make ``p`` negative at the end, it is 0.

    Raises:
      InputError: if the rise is shorter than one step, or ``warmup_steps`` is given.
    """
    cut = math.floor(num_steps * cut_frac)
    if warmup_steps or cut < 1 or not 0 < cut_frac < 1:
        raise InputError(
            f"slanted_triangular got warmup_steps {warmup_steps} and a rise of "
            f"{cut} steps (cut_frac {cut_frac} of {num_steps}); expected no "
            "warmup_steps (in a config optim.warmup_percent=0), as the rise is the "
            "warm-up, and a rise of at least 1."
        )

    def schedule(step: Any) -> Any:
        rising = step / cut
        falling = 1 - (step - cut) / (cut * (1 / cut_frac - 1))
        p = jnp.maximum(jnp.where(step < cut, rising, falling), 0.0)
        return peak * (1 + p * (ratio - 1)) / ratio

    return schedule


def make_warmup_stable_decay(
    peak: float,
    *,
    num_steps: int,
    warmup_steps: int = 0,
    decay_fraction: float = 0.2,
    end_fraction: float = 0.0,
) -> Schedule:
    """Make a plateau at ``peak`` whose last ``decay_fraction`` falls in a line.

    The fall takes ``round(decay_fraction * num_steps)`` steps, to
    ``end_fraction * peak``. Hu et al. 2024 (MiniCPM); Hägele et al. 2024.
    """
    decay_steps = _decay_steps(decay_fraction, num_steps, warmup_steps)
    fall = optax.linear_schedule(
        peak, peak * end_fraction, decay_steps, num_steps - decay_steps - warmup_steps
    )
    return _warmed_up(fall, peak, warmup_steps)


def make_warmup_stable_sqrt(
    peak: float,
    *,
    num_steps: int,
    warmup_steps: int = 0,
    decay_fraction: float = 0.2,
    end_fraction: float = 0.0,
) -> Schedule:
    """Make a plateau at ``peak`` whose last ``decay_fraction`` falls as ``1 - sqrt``.

    ``peak * (e + (1 - e) * (1 - sqrt(s)))``, ``s`` from 0 to 1 in the fall, which takes
    ``round(decay_fraction * num_steps)`` steps and is steep first. Hägele et al. 2024
    (arXiv 2405.18392), section 3, who found it better than a line.

    Raises:
      InputError: if warm-up and fall are longer than the run.
    """
    decay_steps = _decay_steps(decay_fraction, num_steps, warmup_steps)
    begin = num_steps - decay_steps - warmup_steps

    def fall(step: Any) -> Any:
        done = jnp.clip((step - begin) / max(decay_steps, 1), 0.0, 1.0)
        return peak * (1 - (1 - end_fraction) * jnp.sqrt(done))

    return _warmed_up(fall, peak, warmup_steps)


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": make_constant,
    "cosine": make_cosine,
    "linear": make_linear,
    "one_cycle": make_one_cycle,
    "rsqrt": make_rsqrt,
    "slanted_triangular": make_slanted_triangular,
    "warmup_stable_decay": make_warmup_stable_decay,
    "warmup_stable_sqrt": make_warmup_stable_sqrt,
}


def make_schedule(
    name: str, peak: float, *, num_steps: int, **options: Any
) -> Schedule:
    """Make a schedule of ``SCHEDULES`` by name.

    Args:
      name: a key of ``SCHEDULES``.
      peak: the highest value.
      num_steps: length of the run, warm-up included.
      **options: keyword arguments of that schedule, such as ``warmup_steps``.

    Returns:
      A function of the step.

    Raises:
      InputError: if the name or an option is unknown, or warm-up is too long.

    Example:
      >>> schedule = make_schedule("linear", 1.0, num_steps=20, warmup_steps=10)
      >>> [float(schedule(step)) for step in (0, 5, 10, 15, 20)]
      [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if name not in SCHEDULES:
        raise InputError(f"unknown schedule {name!r}; known: {sorted(SCHEDULES)}.")
    known = inspect.signature(SCHEDULES[name]).parameters.keys() - {"peak", "num_steps"}
    if unknown := options.keys() - known:
        raise InputError(
            f"schedule {name!r} has no option {sorted(unknown)}; known: "
            f"{sorted(known)}."
        )
    if not 0 <= options.get("warmup_steps", 0) < num_steps:
        raise InputError(
            f"warm-up of {options['warmup_steps']} steps in a run of {num_steps}; "
            "expected at least 0 and less than the run."
        )
    of_step = SCHEDULES[name](peak, num_steps=num_steps, **options)

    def schedule(step: Any) -> Any:
        # optax mixes booleans and floats, which strict promotion refuses; a float step
        # keeps the value in double precision where that is on.
        with jax.numpy_dtype_promotion("standard"):
            return of_step(jnp.asarray(step, float))

    return schedule


def follow_schedule(first: Schedule, then: Schedule, *, at: int) -> Schedule:
    """Make one schedule of two, each on its own clock: the second is 0 at step ``at``.

    >>> schedule = follow_schedule(lambda t: 10 + t, lambda t: 20 + t, at=3)
    >>> [int(schedule(step)) for step in (0, 2, 3, 5)]
    [10, 12, 20, 22]
    """

    def schedule(step: Any) -> Any:
        # the second one is not asked about steps before its first
        return jnp.where(step < at, first(step), then(jnp.maximum(step - at, 0)))

    return schedule


def _decay_steps(decay_fraction: float, num_steps: int, warmup_steps: int) -> int:
    """The length of the fall behind a plateau.

    Raises:
      InputError: if there is none, or it leaves no room for the warm-up.
    """
    if not 0 < decay_fraction <= 1:
        raise InputError(
            f"decay_fraction is {decay_fraction}; expected the share of the run that "
            "falls, above 0 and at most 1."
        )
    decay_steps = round(decay_fraction * num_steps)
    if warmup_steps + decay_steps > num_steps:
        raise InputError(
            f"warm-up ({warmup_steps}) and decay ({decay_steps}) are longer than the "
            f"{num_steps} steps of the run; shorten one of them."
        )
    return decay_steps


def _warmed_up(main: Schedule, peak: float, warmup_steps: int) -> Schedule:
    """Put a linear warm-up before ``main``, which then starts from its own step 0."""
    if warmup_steps == 0:
        return main
    warmup = optax.linear_schedule(0.0, peak, warmup_steps)
    return optax.join_schedules([warmup, main], [warmup_steps])


class LearningRateState(NamedTuple):
    """Number of updates so far."""

    step: jax.Array  # []


def scale_by_learning_rate(
    learning_rate: float | Schedule,
) -> optax.GradientTransformationExtraArgs:
    """Multiply updates by minus the learning rate of the global step.

    Unlike optax's, it follows the extra argument ``step`` where the caller has a count
    of its own, so that a skipped update does not delay the schedule.

    Args:
      learning_rate: a number or a schedule.

    Returns:
      The transform.

    Example:
      >>> tx = scale_by_learning_rate(lambda step: 0.5 * step)
      >>> grads = {"w": jnp.array(1.0)}
      >>> float(tx.update(grads, tx.init(grads), step=3)[0]["w"])
      -1.5
    """

    def init_fn(params: Params) -> LearningRateState:
        del params
        return LearningRateState(jnp.zeros((), jnp.int32))

    def update_fn(
        updates: Any,
        state: LearningRateState,
        params: Params = None,
        *,
        step: Any = None,
        **extra_args: Any,
    ) -> tuple[Any, LearningRateState]:
        del params, extra_args
        now = state.step if step is None else step
        rate = learning_rate(now) if callable(learning_rate) else learning_rate
        scaled = jax.tree.map(lambda u: u * -jnp.asarray(rate, u.dtype), updates)
        return scaled, LearningRateState(state.step + 1)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
