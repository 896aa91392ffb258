# SPDX-License-Identifier: Apache-2.0
"""Pictures of a task's data and predictions: numbers, classes and lengths."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from jft.evals.canvas import BLUE, INK, ORANGE, PALE, picture


def plot_regression(
    targets: Float[np.ndarray, " N"],
    values: Float[np.ndarray, " N"],
    path: str | Path,
    *,
    name: str = "value",
) -> Path:
    """Predicted against true numbers; on the line they are equal.

    Args:
      targets: what is right.
      values: what was predicted; those that are not finite are left out.
      path: of the PNG.
      name: what the numbers are.
    """
    finite = np.isfinite(values)
    lowest, highest = _range(np.concatenate([targets, values[finite]]))
    with picture(path, width=5.2, height=5.0) as figure:
        ax = figure.subplots()
        ax.plot([lowest, highest], [lowest, highest], color=ORANGE, linewidth=1.2)
        shade = float(np.clip(200 / max(len(targets), 1), 0.08, 0.8))
        ax.scatter(
            targets[finite], values[finite], s=14, color=BLUE, alpha=shade, linewidth=0
        )
        ax.set_xlim(lowest, highest)
        ax.set_ylim(lowest, highest)
        ax.set_aspect("equal")
        ax.grid()
        ax.set_xlabel(f"true {name}")
        ax.set_ylabel(f"predicted {name}")
        error = np.sqrt(np.mean(np.square(values - targets))) if len(targets) else 0.0
        ax.set_title(f"{len(targets):,} predictions, off by {error:.3g} (rms)")
    return Path(path)


def plot_class_f1s(
    f1s: Mapping[str, tuple[float, int]], path: str | Path, *, max_classes: int = 40
) -> Path:
    """A bar a class or type of entity: its F1, best on top, and how many there are.

    Args:
      f1s: name to F1 and number of true examples, as `entity_f1s` gives them.
      path: of the PNG.
      max_classes: of more classes the most frequent are drawn.
    """
    frequent = sorted(f1s, key=lambda name: -f1s[name][1])[:max_classes]
    names = sorted(frequent, key=lambda name: f1s[name])
    scores = [f1s[name][0] for name in names]
    with picture(path, width=7.0, height=1.2 + 0.28 * len(names)) as figure:
        ax = figure.subplots()
        ax.barh(range(len(names)), scores, color=BLUE, height=0.7)
        for row, name in enumerate(names):
            ax.annotate(
                f"{f1s[name][0]:.2f}  of {f1s[name][1]:,}",
                (f1s[name][0], row),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
        ax.set_yticks(range(len(names)), names)
        ax.tick_params(axis="y", length=0)
        ax.set_xlim(0, 1.15)
        ax.set_xticks(np.arange(0, 1.01, 0.25))
        ax.grid(axis="x")
        rest = f"; the {len(names)} most frequent of {len(f1s)}"
        ax.set_title("F1 of each class" + (rest if len(names) < len(f1s) else ""))
    return Path(path)


def plot_lengths(
    lengths: Int[np.ndarray, " N"], shapes: Sequence[int], path: str | Path
) -> Path:
    """How long the rows are, and the lengths that programs are compiled for.

    A row is padded to the smallest of these that holds it, and cut to the largest.

    Args:
      lengths: of each row, in tokens.
      shapes: the compiled lengths.
      path: of the PNG.
    """
    shapes = sorted(shapes)
    padded, is_cut = padding_share(lengths, shapes), lengths > shapes[-1]
    last = max(int(lengths.max(initial=1)), shapes[-1])
    with picture(path, width=7.0, height=3.4) as figure:
        ax = figure.subplots()
        width = -(-last // 60)  # whole, so that each bar holds as many lengths
        edges = np.arange(0, last + width, width) + 0.5
        for chosen, colour in ((~is_cut, BLUE), (is_cut, PALE)):
            ax.hist(lengths[chosen], bins=edges, color=colour)
        for shape in shapes:
            ax.axvline(shape, color=ORANGE, linewidth=1.2)
            ax.annotate(
                f"{shape:,}",
                (shape, 1.0),
                xycoords=ax.get_xaxis_transform(),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=INK,
            )
        ax.set_xlim(0, last * 1.02)
        ax.grid(axis="y")
        ax.set_xlabel("tokens a row")
        ax.set_ylabel("rows")
        ax.set_title(
            f"{len(lengths):,} rows; {padded:.0%} of what is computed is padding"
            + (f"; {is_cut.sum():,} rows are cut" if is_cut.any() else ""),
            pad=16,
        )
    return Path(path)


def padding_share(lengths: Int[np.ndarray, " N"], shapes: Sequence[int]) -> float:
    """Share of padding where each row fills the smallest of ``shapes`` that holds it.

    >>> round(padding_share(np.array([3, 8, 20]), [4, 8]), 2)  # 1 of 4 + 8 + 8
    0.05
    """
    ordered = np.sort(np.asarray(shapes))
    kept = np.minimum(lengths, ordered[-1])
    taken = ordered[np.searchsorted(ordered, kept)].sum()
    return float(1 - kept.sum() / taken) if taken else 0.0


def _range(values: np.ndarray) -> tuple[float, float]:
    """Both ends of the axes, a little room around the values."""
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    room = 0.04 * (high - low) or 0.5
    return low - room, high + room
