# SPDX-License-Identifier: Apache-2.0
"""WiSE-FT: between a base and what it became, how well each point does both tasks."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jft.evals.canvas import BLUE, name_point, picture
from jft.params.average import interpolate
from jft.types import InputError, Params

ScoreFn = Callable[[Params], Mapping[str, float]]


def wise_ft_curve(
    params0: Params,
    params1: Params,
    alphas: Sequence[float],
    score_fns: Mapping[str, ScoreFn],
    *,
    keep: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Score the models between two, see `jft.params.interpolate`.

    Choose ``alpha`` by a validation split, of either task or of both.
    Wortsman et al. 2021, arXiv 2109.01903.

    Args:
      params0: the base, where ``alpha`` is 0.
      params1: the fine-tuned model, where it is 1.
      alphas: the points.
      score_fns: split to ``params -> {metric: value}``; that of the source task puts
        its own head back first.
      keep: regexes of the paths that stay as in ``params1``, such as the new head.

    Returns:
      ``{"alpha": alpha, split: {metric: value}, …}`` for each point.

    Raises:
      InputError: as ``interpolate``, or if there is no point.

    Example:
      >>> import jax.numpy as jnp
      >>> score_fns = {"test": lambda params: {"accuracy": params["w"].item()}}
      >>> ends = {"w": jnp.zeros(())}, {"w": jnp.ones(())}
      >>> wise_ft_curve(*ends, [0.0, 0.5], score_fns)[1]
      {'alpha': 0.5, 'test': {'accuracy': 0.5}}
    """
    if not alphas:
        raise InputError("alphas are empty; give the points to look at, from 0 to 1.")
    curve = []
    for alpha in alphas:
        params = interpolate(params0, params1, alpha, keep=keep)
        scores = {split: dict(score(params)) for split, score in score_fns.items()}
        curve.append({"alpha": alpha, **scores})
    return curve


def plot_wise_ft(
    curve: Sequence[Mapping[str, Any]],
    path: str | Path,
    *,
    metric: str = "accuracy",
    source_metric: str | None = None,
    source_name: str,
    target_name: str,
) -> Path:
    """Draw what each point does on the new task over what it does on the old.

    Args:
      curve: what `wise_ft_curve` returns, of the splits ``source`` and ``test``.
      path: of the PNG.
      metric: of the new task.
      source_metric: of the old; None: the same.
      source_name: the task that the model comes from, to the right.
      target_name: the task that it learned, upwards.
    """
    source_metric = source_metric or metric
    xs = [point["source"][source_metric] for point in curve]
    ys = [point["test"][metric] for point in curve]
    with picture(path, width=6.0, height=4.6) as figure:
        ax = figure.subplots()
        ax.plot(xs, ys, color=BLUE, linewidth=2, marker="o", ms=5)
        for point, x, y in zip(curve, xs, ys, strict=True):
            name_point(ax, f"{point['alpha']:g}", (x, y))
        ax.grid()
        ax.margins(0.08)
        ax.set_xlabel(f"{source_name} {source_metric}")
        ax.set_ylabel(f"{target_name} {metric}")
        ax.set_title("from the base (0) to the fine-tuned model (1)")
    return Path(path)
