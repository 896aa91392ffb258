# SPDX-License-Identifier: Apache-2.0
"""One row a family of text models: what the contract and parity tests run over.

A tiny config whose variants turn every field that changes the arithmetic, and the
published sizes. ``families_test.py`` fails when a family has no row.
"""

from tests.models.row import Row
from tests.models.rows import (
    albert,
    bart,
    bert,
    deberta_v2,
    distilbert,
    electra,
    gemma2,
    gemma3_text,
    gpt2,
    gpt_neox,
    llama,
    marian,
    mbart,
    mistral,
    modernbert,
    phi3,
    qwen2,
    qwen3,
    roberta,
    t5,
    xlm_roberta,
)

TABLE: dict[str, Row] = {
    "albert": albert.ROW,
    "bart": bart.ROW,
    "bert": bert.ROW,
    "deberta-v2": deberta_v2.ROW,
    "distilbert": distilbert.ROW,
    "electra": electra.ROW,
    "gemma2": gemma2.ROW,
    "gemma3_text": gemma3_text.ROW,
    "gpt2": gpt2.ROW,
    "gpt_neox": gpt_neox.ROW,
    "llama": llama.ROW,
    "marian": marian.ROW,
    "mbart": mbart.ROW,
    "mistral": mistral.ROW,
    "modernbert": modernbert.ROW,
    "phi3": phi3.ROW,
    "qwen2": qwen2.ROW,
    "qwen3": qwen3.ROW,
    "roberta": roberta.ROW,
    "t5": t5.ROW,
    "xlm-roberta": xlm_roberta.ROW,
}
