# SPDX-License-Identifier: Apache-2.0
"""Several adapters over one base answer as PEFT's: mixed in a batch, and added up."""

import importlib.util
import warnings

import jax
import numpy as np
import pytest

import jft
from jft.params.adapters import Lora
from tests.adapter_sets import adapted
from tests.export.adapter_test import TOLERANCE, read_torch, real_of, write_base

needs_peft = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("torch", "peft")),
    reason="torch or peft is absent: pip install -e '.[parity]'",
)
ADAPTERS = {
    "law": Lora(rank=4, alpha=6.0, rank_pattern=((".*/0/.*", 2),)),
    "news": Lora(rank=3, rslora=True),
}


@pytest.fixture
def both(request, tmp_path):
    """A base with two adapters: jft's, PEFT's, and a batch."""
    import peft

    model_type, task = request.param
    batch = write_base(tmp_path / "base", model_type, task)
    base = jft.load(tmp_path / "base")
    for i, (name, adapter) in enumerate(ADAPTERS.items()):
        jft.save_adapter(tmp_path / name, adapted(base, adapter, i))
    several = jft.gather(base, {name: tmp_path / name for name in ADAPTERS})
    torch_model = read_torch(tmp_path / "base", model_type, task)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peft.PeftModel.from_pretrained(torch_model, tmp_path / "law", "law")
        theirs.load_adapter(tmp_path / "news", "news")
    return several, theirs.eval(), task, batch


def ask(model, batch, **options):
    import torch

    with torch.no_grad():
        tensors = {name: torch.tensor(x).long() for name, x in batch.items()}
        return model(**tensors, **options).logits.numpy()


def answers(model, batch):
    return np.asarray(jax.jit(model.apply_fn)(model.params, batch, key=None))


@needs_peft
@pytest.mark.parametrize(
    "both",
    [("bert", "sequence_classification"), ("gpt2", "causal_lm")],
    indirect=True,
)
def test_rows_of_a_mixed_batch(both):
    several, theirs, task, batch = both
    names = ["news", None, "law"]
    ours = answers(several.mixed(), {**batch, "adapter_ids": several.ids(names)})
    asked = [name or "__base__" for name in names]
    expected = ask(theirs, batch, adapter_names=asked)
    real = real_of(task, batch)
    np.testing.assert_allclose(ours[real], expected[real], atol=TOLERANCE)
    plain = answers(several.base, batch)
    assert np.abs(ours - plain)[real].max() > 0.1


@needs_peft
@pytest.mark.parametrize(
    "both", [("gpt2", "causal_lm"), ("llama", "causal_lm")], indirect=True
)
def test_factors_side_by_side(both):
    """PEFT's combination_type "cat"."""
    several, theirs, task, batch = both
    weights = {"law": 0.7, "news": -0.3}
    ours = answers(several.weighted_sum(weights), batch)
    names, numbers = list(weights), list(weights.values())
    theirs.add_weighted_adapter(names, numbers, "sum", combination_type="cat")
    theirs.set_adapter("sum")
    real = real_of(task, batch)
    np.testing.assert_allclose(ours[real], ask(theirs, batch)[real], atol=TOLERANCE)
    assert np.abs(ours - answers(several.use("law"), batch))[real].max() > 0.1
