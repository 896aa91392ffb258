# SPDX-License-Identifier: Apache-2.0
"""How every picture looks: one style, direct labels, marked openings.

matplotlib is imported inside the functions, and its figures are made without pyplot:
no window, no global state, nothing left open.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

# Okabe and Ito's colours: told apart by colour-blind readers, and in grey.
BLUE, ORANGE, INK, PALE = "#0072B2", "#D55E00", "#333333", "#999999"

_STYLE = {
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": PALE,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.axisbelow": True,
    "grid.color": "#ECECEC",
    "xtick.color": PALE,
    "ytick.color": PALE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.solid_capstyle": "round",
}


@contextmanager
def picture(path: str | Path, *, width: float, height: float) -> Iterator[Any]:
    """Give an empty figure (inches) in the house style; save it as PNG at the end."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # the reader's own matplotlibrc changes no picture
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        figure.savefig(path, format="png", metadata={"Software": None})


def title_over_openings(ax: Any, title: str, opening_steps: Mapping[int, str]) -> None:
    """Mark openings, name them above the axes, and put the title above the names."""
    steps = mark_openings(ax, opening_steps)
    names = [opening_steps[step] for step in steps]
    longest = max(map(len, names), default=0)
    slant = 0 if _fit_in_a_row(ax, steps, names) else 40
    for step, name in zip(steps, names, strict=True):
        ax.annotate(
            name,
            (step, 1.0),
            xycoords=ax.get_xaxis_transform(),
            xytext=(2, 3),
            textcoords="offset points",
            fontsize=8,
            color="#777777",
            rotation=slant,
            rotation_mode="anchor",
        )
    ax.set_title(title, pad=10 + 3.2 * longest if slant else 18)


def mark_openings(ax: Any, opening_steps: Mapping[int, str]) -> list[int]:
    """Draw a line at each opening within the axes' limits; return those steps."""
    first, last = ax.get_xlim()
    steps = sorted(step for step in opening_steps if first <= step <= last)
    for step in steps:
        ax.axvline(step, color=PALE, linewidth=0.8, linestyle=(0, (2, 3)), zorder=1)
    return steps


def _fit_in_a_row(ax: Any, steps: Sequence[int], names: Sequence[str]) -> bool:
    """Say whether each name ends before the next one starts."""
    first, last = ax.get_xlim()
    letter = 0.075 * (last - first) / (0.8 * ax.figure.get_figwidth())  # 8 points wide
    pairs = zip(steps, steps[1:], names, strict=False)
    return all(step + letter * (len(name) + 1) < after for step, after, name in pairs)


def label_ends(ax: Any, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write ``(y, text, colour)`` right of the axes at each y, moved apart to be read.

    Called last: the limits of y must not change afterwards.
    """
    low, high = ax.get_ylim()
    ordered = sorted((end for end in ends if np.isfinite(end[0])), key=lambda e: e[0])
    heights = [(y - low) / (high - low) for y, _, _ in ordered]
    gap = 0.19 / (ax.get_position().height * ax.figure.get_figheight())
    for y, (_, text, colour) in zip(_spread(heights, gap), ordered, strict=True):
        ax.annotate(
            text,
            (1.0, y),
            xycoords="axes fraction",
            xytext=(6, 0),
            textcoords="offset points",
            color=colour,
            va="center",
            fontweight="bold",
            fontsize=9,
        )


def name_point(ax: Any, text: str, point: tuple[float, float]) -> None:
    """Write what a point is, small, above it to the right."""
    ax.annotate(
        text,
        point,
        xytext=(6, 4),
        textcoords="offset points",
        fontsize=8,
        color=INK,
    )


def _spread(heights: Sequence[float], gap: float) -> list[float]:
    """Move ascending heights apart to at least ``gap``, their middle kept."""
    moved: list[float] = []
    for height in heights:
        moved.append(max(height, moved[-1] + gap) if moved else height)
    shift = (sum(moved) - sum(heights)) / max(len(heights), 1)
    return [height - shift for height in moved]


def smooth(values: np.ndarray, *, width: int) -> np.ndarray:
    """Centred moving mean over ``width`` points, fewer at the ends.

    >>> smooth(np.array([0.0, 3.0, 0.0, 3.0]), width=3)
    array([1.5, 1. , 2. , 1.5])
    """
    window = np.ones(width)
    kept = np.isfinite(values)
    sums = np.convolve(np.where(kept, values, 0.0), window, mode="same")
    counts = np.convolve(kept.astype(float), window, mode="same")
    return np.where(counts > 0, sums / np.maximum(counts, 1.0), np.nan)
