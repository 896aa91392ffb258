# SPDX-License-Identifier: Apache-2.0
"""Several models of one shape in one: points between two, and averages of many."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from jft.params.init import matches_any
from jft.params.quantised import whole_path
from jft.paths import flatten, map_with_path
from jft.types import InputError, Params


def interpolate(
    params0: Params, params1: Params, alpha: float, *, keep: Sequence[str] = ()
) -> Params:
    """Take the point ``(1 - alpha) * params0 + alpha * params1`` between two models.

    With the pre-trained model first and the fine-tuned one second that is WiSE-FT:
    Wortsman et al. 2021, "Robust fine-tuning of zero-shot models", arXiv 2109.01903.
    A new head has nothing to be mixed with: name its paths in ``keep``, and leave the
    head of the first model's own task aside, as `jft.evals.set_head_aside` does.

    Args:
      params0: where ``alpha`` is 0; leaves that ``params1`` lacks are left out.
      params1: where it is 1; half precision is mixed in float32.
      alpha: from 0 to 1.
      keep: regexes of paths, matched in full, that stay as in ``params1``.

    Returns:
      A tree like ``params1``.

    Raises:
      InputError: if ``alpha`` is not in [0, 1], or a leaf that is not kept is absent
        from ``params0`` or has another shape there.

    Example:
      >>> import numpy as np
      >>> old = {"body": np.zeros(1, np.float32)}
      >>> new = {"body": np.ones(1, np.float32), "head": np.ones(2)}
      >>> interpolate(old, new, 0.25, keep=["head"])["body"].tolist()
      [0.25]
    """
    if not 0 <= alpha <= 1:
        raise InputError(
            f"alpha is {alpha}; expected a number from 0, the first model, to 1, the "
            "second."
        )
    first = flatten(params0)
    mixed = [path for path in flatten(params1) if not matches_any(keep, path)]
    check_alike(first, flatten(params1), mixed)

    def mix(path: str, leaf: Any) -> Any:
        if matches_any(keep, path):
            return leaf
        return weighted_sum(first[path], 1 - alpha, leaf, alpha)

    return map_with_path(mix, params1)


def uniform_soup(models: Iterable[Params]) -> Params:
    """Average the weights of models that were fine-tuned from one base.

    Wortsman et al. 2022, "Model soups: averaging weights of multiple fine-tuned models
    improves accuracy without increasing inference time", arXiv 2203.05482. One model at
    a time is in memory beside the sum, if they are given by a generator.

    Args:
      models: trees of one structure.

    Returns:
      Their mean, in the dtypes of the last.

    Raises:
      InputError: if there is none, or two are not alike.

    Example:
      >>> import numpy as np
      >>> uniform_soup({"w": np.float32([x])} for x in (1, 2, 6))["w"].tolist()
      [3.0]
    """
    soup = None
    for count, model in enumerate(models):
        soup = model if soup is None else _stir(soup, model, count)
    if soup is None:
        raise InputError("no model was given; a soup needs one or more.")
    return soup


class Soup(NamedTuple):
    """What a greedy soup is made of, and how good it is."""

    params: Params
    chosen: tuple[int, ...]  # the ingredients, the best first
    score: float


def greedy_soup(
    scores: Sequence[float],
    load_fn: Callable[[int], Params],
    score_fn: Callable[[Params], float],
    *,
    mode: str = "max",
) -> Soup:
    """Average the best models, each only if the average does not get worse by it.

    From the best on, a model is added where the mean with it scores at least as well
    as without. Wortsman et al. 2022, arXiv 2203.05482, recipe 1.

    Args:
      scores: of each model on examples that none was trained on.
      load_fn: from a model's index to its parameters; called once each, the best first.
      score_fn: the same score of any parameters.
      mode: "max" or "min", what is better.

    Returns:
      The soup; its score is no worse than the best model's.

    Raises:
      InputError: if there is no model, one is not alike, or the mode is unknown.

    Example:
      >>> import numpy as np
      >>> models = [{"w": np.float32([x])} for x in (1, 8, 2)]
      >>> closeness = lambda params: -abs(params["w"].item() - 1.6)
      >>> scores = [closeness(model) for model in models]
      >>> greedy_soup(scores, models.__getitem__, closeness).chosen
      (2, 0)
    """
    if mode not in ("max", "min"):
        raise InputError(f'mode is {mode!r}; expected "max" or "min".')
    if not scores:
        raise InputError("no model was given; a soup needs one or more.")
    sign = 1 if mode == "max" else -1
    first, *others = sorted(range(len(scores)), key=lambda i: -sign * scores[i])
    soup = Soup(load_fn(first), (first,), scores[first])
    for index in others:
        params = _stir(soup.params, load_fn(index), len(soup.chosen))
        score = score_fn(params)
        if sign * score >= sign * soup.score:
            soup = Soup(params, (*soup.chosen, index), score)
    return soup


def _stir(soup: Params, model: Params, count: int) -> Params:
    """Add one more to the mean of ``count`` models."""
    before, now = flatten(soup), flatten(model)
    check_alike(before, now, [*now, *(path for path in before if path not in now)])
    share = 1 / (count + 1)
    return map_with_path(
        lambda path, leaf: weighted_sum(before[path], 1 - share, leaf, share), model
    )


def weighted_sum(x: Any, x_weight: float, y: Any, y_weight: float) -> Any:
    """``x_weight * x + y_weight * y`` in at least float32, in the dtype of ``y``."""
    wide = y.dtype if y.dtype.itemsize >= 4 else jnp.float32
    total = x_weight * jnp.asarray(x, wide) + y_weight * jnp.asarray(y, wide)
    return total.astype(y.dtype)


def check_alike(
    first: dict[str, Any], second: dict[str, Any], shared: Sequence[str]
) -> None:
    """Refuse paths that two models do not both have, in one shape, and codes."""
    if codes := [path for path in shared if whole_path(path) != path]:
        raise InputError(
            f"{whole_path(codes[0])} is quantised, and codes cannot be mixed; make the "
            "models plain first, with jft.fold."
        )
    absent = [[p for p in shared if p not in side] for side in (second, first)]
    both = [path for path in shared if path in first and path in second]
    other = {
        path: (first[path].shape, second[path].shape)
        for path in both
        if first[path].shape != second[path].shape
    }
    if any(absent) or other:
        raise InputError(
            "the models are not alike, so that their weights cannot be mixed. Only in "
            f"the first: {sorted(absent[0])[:5]}. Only in the second: "
            f"{sorted(absent[1])[:5]}. Of other shapes (first, second): "
            f"{dict(sorted(other.items())[:5])}. Give models with one base and the "
            "same classes; keep heads of different tasks apart."
        )
