# SPDX-License-Identifier: Apache-2.0
"""Many ways to fine-tune in one picture: what each learns and keeps, at what cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jft.evals.canvas import BLUE, ORANGE, label_ends, name_point, picture

History = Sequence[Mapping[str, Any]]  # records {"step": int, "split": str, **floats}


def plot_methods(
    histories: Mapping[str, Sequence[History]],
    table: Mapping[str, Mapping[str, Any]],
    path: str | Path,
    *,
    metric: str = "accuracy",
    source_metric: str = "accuracy",
) -> Path:
    """Draw the new task over the old, a point a method, and both over the steps.

    Args:
      histories: method to the records of its runs, a list a seed; [] where a method has
        none of its own, such as a point between two models.
      table: method to ``{"test": {"mean", "sd"}, "source_after": {"mean", "sd"},
        "source_before": {"mean"}, "cost": float}``; ``sd`` may be None, ``cost`` is
        over that of full fine-tuning.
      path: of the PNG.
      metric: of the new task.
      source_metric: of the old.

    Returns:
      The path.
    """
    with picture(path, width=11.0, height=5.6) as figure:
        grid = figure.add_gridspec(2, 2, width_ratios=(1.5, 1))
        _draw_points(figure.add_subplot(grid[:, 0]), table, metric, source_metric)
        for row, (split, name, title) in enumerate(
            (
                ("validation", metric, f"the new task's {metric} over the steps"),
                ("source", source_metric, f"the old task's {source_metric}"),
            )
        ):
            ax = figure.add_subplot(grid[row, 1])
            _draw_curves(ax, histories, split, name)
            ax.set_title(title)
            ax.grid(axis="y")
        figure.axes[-1].set_xlabel("step")
    return Path(path)


def _draw_points(
    ax: Any, table: Mapping[str, Mapping[str, Any]], metric: str, source_metric: str
) -> None:
    """The better a method, the further up and to the right; the dearer, the larger."""
    for method, row in table.items():
        x, y = row["source_after"], row["test"]
        ax.errorbar(
            x["mean"],
            y["mean"],
            xerr=x["sd"],
            yerr=y["sd"],
            fmt="o",
            ms=4 + 5 * row["cost"] ** 0.5,
            color=_colour(method),
            ecolor=_colour(method),
            elinewidth=0.8,
            alpha=0.85,
            label=f"{method} ×{row['cost']:.2g}" if method in _COLOURS else None,
        )
        if method not in _COLOURS:  # of a curve: its points are told by their names
            name_point(ax, method, (x["mean"], y["mean"]))
    before = next(iter(table.values()))["source_before"]["mean"]
    ax.axvline(before, color=ORANGE, linewidth=0.8, alpha=0.6)
    ax.grid()
    ax.margins(0.12)
    ax.legend(loc="lower left", fontsize=9, frameon=False)
    ax.set_xlabel(f"old task, {source_metric} (line: before)")
    ax.set_ylabel(f"new task, test {metric}")
    ax.set_title("what is learned and what is kept; ×: operations over full")


def _draw_curves(
    ax: Any, histories: Mapping[str, Sequence[History]], split: str, name: str
) -> None:
    """The mean over the seeds, of the steps that all of them have."""
    ends = []
    for method, runs in histories.items():
        series = [
            {r["step"]: r[name] for r in records if r["split"] == split}
            for records in runs
        ]
        steps = sorted(set.intersection(*map(set, series))) if series else []
        if steps:
            means = [float(np.mean([one[step] for one in series])) for step in steps]
            ax.plot(steps, means, color=_colour(method), linewidth=1.5)
            ends.append((means[-1], method, _colour(method)))
    ax.margins(x=0.01)
    label_ends(ax, ends)


# they differ in hue or in lightness; a method keeps its own
_COLOURS = {
    "full": "#B23A48",
    "head": "#6C757D",
    "gradual": "#C77D0A",
    "lora": BLUE,
    "l2_sp": "#7B5EA7",
    "ewc": "#0B3C49",
    "lwf": "#8D6A4F",
    "replay": "#2D8659",
    "lp_ft": "#E07BB0",
}


def _colour(method: str) -> str:
    return _COLOURS.get(method, "#444444")
