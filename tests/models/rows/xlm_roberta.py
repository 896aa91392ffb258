# SPDX-License-Identifier: Apache-2.0
"""XLM-RoBERTa is RoBERTa's row with sizes of its own."""

from tests.models.rows import roberta

ROW = roberta.ROW._replace(
    variants={},
    num_params={
        "xlm-roberta-base": ("base", 278_043_648),
        "xlm-roberta-large": ("base", 559_890_432),
    },
)
