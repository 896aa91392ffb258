# SPDX-License-Identifier: Apache-2.0
"""A new method is one class and one entry: all else asks it what it is."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jft
from experiments.adapter import make_adapter
from jft.config import AdapterConfig
from jft.models.arrays import along_last
from jft.params.adapters import ADAPTERS, ALL_LINEAR, Targeted
from jft.paths import map_with_path
from jft.types import InputError
from tests.params.adapters import table


@dataclass(frozen=True, kw_only=True)
class Shift(Targeted):
    """A learned vector is added to what each product answers."""

    peft_type: ClassVar[str] = "TEST_SHIFT"
    known: ClassVar[tuple[str, ...]] = ("start",)
    endings: ClassVar[Mapping[str, str]] = {"shift": "shift.vector"}
    targets: tuple[str, ...] = (ALL_LINEAR,)
    start: float = 0.0

    def init(self, products, params, key):
        shapes = {path: self.shapes(path, x)["shift"] for path, x in products.items()}
        return {p: {"shift": jnp.full(x, self.start)} for p, x in shapes.items()}

    def shapes(self, path, product):
        return {"shift": product.shape[-1:]}

    def forward(self, path, call, leaves):
        y = call.run(call.x)
        return y + along_last(leaves["shift"], y)

    def fold(self, path, base, leaves):
        return {**base, "bias": base["bias"] + leaves["shift"]}


@pytest.fixture
def shifted(monkeypatch):
    """The base, and the same with the method on it, of which all numbers are moved."""
    monkeypatch.setitem(ADAPTERS, "shift", Shift)
    base, batch = table.make_model("bert", "token_classification")
    config = AdapterConfig(method="shift", options={"start": 2})
    model = jft.adapt(base, make_adapter(config), key=jax.random.key(0))

    def move(path, x):
        return x + len(path) / 100 if path.endswith("shift") else x

    return base, model._replace(params=map_with_path(move, model.params)), batch


def test_it_is_written_read_and_folded(shifted, tmp_path):
    base, model, batch = shifted
    jft.save_adapter(tmp_path, model)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["peft_type"], config["start"]) == ("TEST_SHIFT", 2.0)
    again = jft.load_adapter(tmp_path, base)
    assert again.adapter.start == 2.0
    jax.tree.map(np.testing.assert_array_equal, model.params, again.params)
    folded = jft.fold(model)
    one, other = (x.apply_fn(x.params, batch, key=None) for x in (model, folded))
    np.testing.assert_allclose(one, other, atol=1e-5)
    assert np.abs(one - base.apply_fn(base.params, batch, key=None)).max() > 0.1


def test_what_it_does_not_know_is_refused(shifted, tmp_path):
    base, model, _ = shifted
    jft.save_adapter(tmp_path, model)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"r": 4}))
    with pytest.raises(InputError, match=r"of a TEST_SHIFT it knows \['start'\]"):
        jft.load_adapter(tmp_path, base)
