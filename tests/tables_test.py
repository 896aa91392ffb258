# SPDX-License-Identifier: Apache-2.0
"""A printed table aligns its numbers right and sums below a rule."""

from jft.tables import format_table


def test_table_aligns_numbers_right_and_sums_below_a_rule():
    rows = [["embeddings", 1234, 0.23730468, "step 60"], ["head", None, 1.0, "open"]]
    table = format_table(
        rows, ["part", "params", "rate", "opens"], footer=["sum", 1234, None, None]
    )
    assert table.splitlines() == [
        "part        params    rate  opens",
        "──────────  ──────  ──────  ───────",
        "embeddings   1,234  0.2373  step 60",
        "head                     1  open",
        "──────────  ──────  ──────  ───────",
        "sum          1,234",
    ]


def test_table_without_rows_is_its_header():
    assert format_table([], ["part"]).splitlines() == ["part", "────"]
