# SPDX-License-Identifier: Apache-2.0
"""One row a family of text models: what the contract and parity tests run over.

A tiny config whose variants turn every field that changes the arithmetic, and the
published sizes. A row is the file of its family's name in ``rows``;
``families_test.py`` fails when a family has none.
"""

from importlib import import_module
from pathlib import Path

from jft.models import MODELS
from tests.models.row import Row


def file_of(model_type: str) -> Path:
    """Where the row of a family stands."""
    return Path(__file__).parent / "rows" / f"{model_type.replace('-', '_')}.py"


TABLE: dict[str, Row] = {
    model_type: import_module(f"tests.models.rows.{file_of(model_type).stem}").ROW
    for model_type in MODELS
    if file_of(model_type).exists()
}
