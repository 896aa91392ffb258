# SPDX-License-Identifier: Apache-2.0
"""Pictures of a run: curves, learning rates, forgetting; and what they are drawn of.

Each function writes one PNG and returns its path, so that a notebook can show it.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jft.evals.canvas import (
    BLUE,
    ORANGE,
    PALE,
    label_ends,
    mark_openings,
    picture,
    smooth,
    title_over_openings,
)
from jft.types import Group, Schedule

History = Sequence[Mapping[str, Any]]  # records {"step": int, "split": str, **floats}
PhaseLike = tuple[int, int, frozenset[Group]]  # start, stop, the open groups


def layer_name(layer: int, *, num_layers: int) -> str:
    """Name a depth as readers do.

    >>> [layer_name(layer, num_layers=2) for layer in range(4)]
    ['embeddings', 'block 0', 'block 1', 'head']
    """
    if layer == 0:
        return "embeddings"
    return "head" if layer == num_layers + 1 else f"block {layer - 1}"


def opening_names(phases: Iterable[PhaseLike], *, num_layers: int) -> dict[int, str]:
    """Say at each step where layers open which ones: what the plots mark.

    >>> all_open = frozenset({0, 1, 2, 3})
    >>> opening_names([(0, 5, frozenset({3})), (5, 9, all_open)], num_layers=2)
    {0: 'head', 5: '3 layers'}
    """
    names: dict[int, str] = {}
    before: frozenset[Group] = frozenset()
    for start, _, groups in phases:
        opened = sorted(
            (g for g in groups - before if isinstance(g, int)), reverse=True
        )
        if len(opened) > num_layers + 1:
            names[start] = "all"
        elif len(opened) > 2:
            names[start] = f"{len(opened)} layers"
        elif opened:
            names[start] = " + ".join(
                layer_name(layer, num_layers=num_layers) for layer in opened
            )
        before = groups
    return names


def learning_rates(
    schedule: Schedule,
    multipliers: Mapping[int, float],
    phases: Iterable[PhaseLike],
) -> dict[int, np.ndarray]:
    """The learning rate of each layer at each step; NaN where the layer is closed.

    Args:
      schedule: global step to rate.
      multipliers: layer to factor, such as layer-wise decay times the label's.
      phases: which layers are open when, from step 0 to the end.
    """
    spans = list(phases)
    steps = jnp.arange(spans[-1][1] if spans else 0)
    base = np.asarray(jax.vmap(schedule)(steps), np.float64)
    rates = {layer: np.full(len(base), np.nan) for layer in multipliers}
    for start, stop, groups in spans:
        for layer in rates.keys() & groups:
            rates[layer][start:stop] = multipliers[layer] * base[start:stop]
    return rates


def plot_curves(
    history: History,
    path: str | Path,
    *,
    metric: str = "accuracy",
    opening_steps: Mapping[int, str],
    best_step: int | None = None,
) -> Path:
    """Loss and metric of training and validation over steps, openings marked.

    Args:
      history: records; those of the splits "train" and "validation" are drawn.
      path: of the PNG.
      metric: what the lower half shows.
      opening_steps: step to the name of what opens there.
      best_step: the evaluation whose checkpoint was kept; ringed.
    """
    with picture(path, width=8.0, height=5.6) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True)
        for ax, name in ((upper, "loss"), (lower, metric)):
            ends = []
            for split, colour in (("train", PALE), ("validation", BLUE)):
                steps, values = _series(history, split, name)
                if len(steps):
                    end = _draw_series(ax, steps, values, colour)
                    ends.append((end, f"{split} {end:.3f}", _darker(colour)))
            ax.grid(axis="y")
            ax.margins(x=0.01)
            label_ends(ax, ends)
        if best_step is not None:
            _ring_best(upper, history, "loss", best_step)
            _ring_best(lower, history, metric, best_step, named=True)
        title_over_openings(upper, "loss", opening_steps)
        mark_openings(lower, opening_steps)
        lower.set_title(metric.replace("_", " "))
        lower.set_xlabel("step")
    return Path(path)


def plot_learning_rates(
    rates_by_layer: Mapping[int, np.ndarray],
    path: str | Path,
    *,
    num_layers: int,
) -> Path:
    """The learning rate of each layer over steps: a strip a layer, the head on top.

    Strips are blank while their layer is closed. The colour is on a logarithmic scale
    that ends at a tenth of the lowest peak; rates below are drawn as its lower end.

    Args:
      rates_by_layer: what `learning_rates` returns.
      path: of the PNG.
      num_layers: number of blocks, for the names.
    """
    from matplotlib.colors import LinearSegmentedColormap, LogNorm
    from matplotlib.ticker import FuncFormatter, LogLocator

    layers = sorted(rates_by_layer, reverse=True)
    rates = np.stack([rates_by_layer[layer] for layer in layers])
    peaks = [np.max(row, where=~np.isnan(row), initial=0.0) for row in rates]
    top = max(peaks) or 1.0
    bottom = max(min((p for p in peaks if p > 0), default=top) / 10, top * 1e-3)
    with picture(path, width=8.0, height=1.4 + 0.3 * len(layers)) as figure:
        ax = figure.subplots()
        image = ax.imshow(
            np.clip(rates, bottom, None),
            norm=LogNorm(bottom, top),
            cmap=LinearSegmentedColormap.from_list("", ["#E3EEF5", BLUE, "#08263D"]),
            aspect="auto",
            interpolation="nearest",
            extent=(0, rates.shape[1], len(layers) - 0.5, -0.5),
        )
        _label_strip(ax, -0.75, "peak")
        for row, peak in enumerate(peaks):
            _label_strip(ax, row, _short(peak, digits=1) if peak else "none")
        names = [layer_name(layer, num_layers=num_layers) for layer in layers]
        ax.set_yticks(range(len(layers)), names)
        ax.set_yticks(np.arange(len(layers) + 1) - 0.5, minor=True)
        ax.grid(which="minor", axis="y", color="white", linewidth=3)
        ax.tick_params(axis="y", which="both", left=False)
        ax.spines["left"].set_visible(False)
        ax.set_xlabel("step")
        ax.set_title("learning rate of each layer, blank while closed")
        bar = figure.colorbar(
            image,
            ax=ax,
            pad=0.02,
            aspect=30,
            ticks=LogLocator(subs=(1.0, 3.0)),
            format=FuncFormatter(lambda rate, _: _short(rate, digits=0)),
        )
        bar.minorticks_off()
        bar.outline.set_visible(False)
    return Path(path)


def plot_forgetting(
    history: History,
    path: str | Path,
    *,
    metric: str = "accuracy",
    source_metric: str | None = None,
    source_name: str,
    target_name: str,
    opening_steps: Mapping[int, str],
) -> Path:
    """What is learned and what is lost: both tasks' metric over the same steps.

    Args:
      history: records of ``source`` and ``validation``; the source's first one is
        before training.
      path: of the PNG.
      metric: in both splits' records.
      source_metric: in the source's, where it is another.
      source_name: the task that the model comes from.
      target_name: the task that it learns.
      opening_steps: step to the name of what opens there.
    """
    with picture(path, width=8.0, height=4.0) as figure:
        ax = figure.subplots()
        ends = []
        for name, split, measured, colour in (
            (target_name, "validation", metric, BLUE),
            (source_name, "source", source_metric or metric, ORANGE),
        ):
            steps, values = _series(history, split, measured)
            if len(steps):
                ax.plot(steps, values, color=colour, linewidth=2, marker="o", ms=4)
                ends.append((values[-1], f"{name} {values[-1]:.3f}", colour))
                if split == "source":
                    ax.axhline(values[0], color=colour, linewidth=0.8, alpha=0.5)
        ax.grid(axis="y")
        ax.margins(x=0.01)
        ax.set_xlabel("step")
        label_ends(ax, ends)
        names = dict.fromkeys([metric, source_metric or metric])
        compared = " or ".join(names).replace("_", " ")
        title = f"{compared} on the new task and on the old"
        title_over_openings(ax, title, opening_steps)
    return Path(path)


def _series(history: History, split: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    points = [
        (r["step"], r[name]) for r in history if r["split"] == split and name in r
    ]
    steps, values = zip(*points, strict=True) if points else ((), ())
    return np.asarray(steps, int), np.asarray(values, float)


def _draw_series(ax: Any, steps: np.ndarray, values: np.ndarray, colour: str) -> float:
    """Draw one curve, noisy ones pale below their moving mean; return its end."""
    if len(steps) <= 40:
        marker = "o" if len(steps) <= 15 else None
        ax.plot(steps, values, color=colour, linewidth=2, marker=marker, ms=4)
        return float(values[-1])
    ax.plot(steps, values, color=colour, linewidth=0.8, alpha=0.45)
    mean = smooth(values, width=max(5, len(steps) // 25))
    ax.plot(steps, mean, color=colour, linewidth=2)
    return float(mean[-1])


def _ring_best(
    ax: Any, history: History, name: str, best_step: int, *, named: bool = False
) -> None:
    steps, values = _series(history, "validation", name)
    for value in values[steps == best_step][:1]:
        ax.plot(
            best_step, value, "o", ms=9, mfc="none", mec=ORANGE, mew=2, clip_on=False
        )
        if named:
            late = best_step > sum(ax.get_xlim()) / 2
            ax.annotate(
                f"best {value:.3f}, step {best_step:,}",
                (best_step, value),
                xytext=(6 if late else -6, -14),
                textcoords="offset points",
                ha="right" if late else "left",
                va="top",
                fontsize=9,
                fontweight="bold",
                color=ORANGE,
            )


def _short(rate: float, *, digits: int) -> str:
    return f"{rate:.{digits}e}".replace("e-0", "e-")


def _label_strip(ax: Any, row: int | float, text: str) -> None:
    ax.annotate(
        text,
        (1.0, row),
        xycoords=ax.get_yaxis_transform(),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
    )


def _darker(colour: str) -> str:
    return "#777777" if colour == PALE else colour
