# SPDX-License-Identifier: Apache-2.0
"""What all tasks share that give an example a number."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jft.evals import Rows, plot_regression
from jft.tasks.task import Table


def predictions(rows: Rows, table: Table) -> np.ndarray:
    """The numbers ``[N]``."""
    del table
    return np.stack(rows["values"])


def plot(
    references: np.ndarray,
    predictions: np.ndarray,
    class_names: Sequence[str],
    to: Path,
) -> Path:
    """Draw predicted against true numbers."""
    del class_names
    return plot_regression(references, predictions, to)
