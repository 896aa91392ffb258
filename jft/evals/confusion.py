# SPDX-License-Identifier: Apache-2.0
"""The confusion matrix, counted and drawn."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from jft.evals.canvas import BLUE, INK, ORANGE, picture


def confusion_counts(
    targets: Int[np.ndarray, " N"],
    predictions: Int[np.ndarray, " N"],
    *,
    num_classes: int,
) -> Int[np.ndarray, "C C"]:
    """Count examples by true class (row) and predicted class (column).

    >>> confusion_counts(np.array([0, 0, 1]), np.array([0, 1, 1]), num_classes=2)
    array([[1, 1],
           [0, 1]])
    """
    cells = np.bincount(targets * num_classes + predictions, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def plot_confusion(
    targets: Int[np.ndarray, " N"],
    predictions: Int[np.ndarray, " N"],
    class_names: Sequence[str],
    path: str | Path,
) -> Path:
    """Confusion matrix: right in blue, wrong in orange, each row a true class.

    The shade is the share of the row, by its square root, so that rare mistakes show.
    """
    counts = confusion_counts(targets, predictions, num_classes=len(class_names))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = float(np.clip(0.42 * len(class_names), 4.5, 11.0))
    with picture(path, width=size + 1.6, height=size + 1.4) as figure:
        ax = figure.subplots()
        ax.imshow(_shade(shares))
        if len(class_names) <= 26:
            _write_counts(ax, counts, shares)
        slanted = max(map(len, class_names)) > 3
        ax.set_xticks(range(len(class_names)), class_names)
        ax.tick_params(axis="x", rotation=45 if slanted else 0)
        ax.set_yticks(range(len(class_names)), class_names)
        right = ax.secondary_yaxis("right")
        right.set_yticks(
            range(len(class_names)), [f"{share:.0%}" for share in np.diag(shares)]
        )
        for axis in (ax, right):
            axis.tick_params(length=0, labelsize=9 if len(class_names) <= 26 else 7)
        for spine in (*ax.spines.values(), *right.spines.values()):
            spine.set_visible(False)
        edges = np.arange(len(class_names) + 1) - 0.5
        ax.set_xticks(edges, minor=True)
        ax.set_yticks(edges, minor=True)
        ax.grid(which="minor")
        ax.tick_params(which="minor", length=0)
        ax.set_xlabel("predicted")
        ax.set_ylabel("true")
        right.set_ylabel("share right")
        ax.set_title(_confusion_title(counts, class_names))
    return Path(path)


def _shade(shares: np.ndarray) -> np.ndarray:
    """Blend white with blue on the diagonal and with orange off it."""
    from matplotlib.colors import to_rgb

    right = np.eye(len(shares), dtype=bool)[..., None]
    colour = np.where(right, to_rgb(BLUE), to_rgb(ORANGE))
    depth = np.where(right[..., 0], shares, np.sqrt(shares))[..., None]
    return 1.0 - depth * (1.0 - colour)


def _write_counts(ax: Any, counts: np.ndarray, shares: np.ndarray) -> None:
    for row, column in np.argwhere(counts > 0):
        share = shares[row, column]
        dark = share > (0.5 if row == column else 0.3)
        ax.text(
            column,
            row,
            f"{counts[row, column]:,}",
            ha="center",
            va="center",
            fontsize=9,
            color="white" if dark else INK,
        )


def _confusion_title(counts: np.ndarray, class_names: Sequence[str]) -> str:
    """Accuracy, and the mistake made most often."""
    total, wrong = counts.sum(), counts.copy()
    np.fill_diagonal(wrong, 0)
    title = f"{np.trace(counts) / max(total, 1):.1%} of {total:,} right"
    if wrong.any():
        true, predicted = divmod(int(wrong.argmax()), len(class_names))
        title += (
            f"\nmost often {class_names[true]} is taken for {class_names[predicted]} "
            f"({wrong.max():,}×)"
        )
    return title
