# SPDX-License-Identifier: Apache-2.0
"""Operations and bytes of a step grow as they should, and what is said of it is so."""

import functools
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import pytest

import jft
from experiments import benchmark
from experiments.benchmarks import growth
from tests.experiments.conftest import BERT
from tests.tiny_tokenizer import make_tokenizer

CONFIGS = Path(__file__).parents[2] / "configs"
# big enough: XLA fuses smaller products into loops, and counts some of them twice
SHAPE = "16x32"
VALUES = {
    "batch": [8, 12, 16],
    "length": [32, 64],
    "depth": [2, 3, 4],  # the last block is another: the head reads one token of it
    "width": [16, 32],
    "trainable": [0, 1, 2, 3],  # the head; and a block; and two; and the embeddings
    "groups": [1, 4],
}


@pytest.fixture(scope="module")
def argv(reviews, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    model = jft.init_model(
        BERT | {"num_hidden_layers": 2},
        key=jax.random.key(0),
        task="base",
        processor=make_tokenizer(model_max_length=64),
    )
    jft.save(folder, model)
    config = f"--config={CONFIGS}/sst2.py:pretrained={folder}"
    few = [f"--shape={SHAPE}", "--steps=1", "--rounds=1"]
    return ["--suite=growth", config, f"--set=data.path={reviews}", *few]


class Grown(NamedTuple):
    """What the suite found of an axis, printed, and drew."""

    result: Mapping[str, Any]
    out: str
    plot: Path

    @property
    def rows(self):
        return self.result["rows"]

    def differences(self, name):
        return [b[name] - a[name] for a, b in itertools.pairwise(self.rows)]


@pytest.fixture(scope="module")
def grow(call, argv, tmp_path_factory):
    """Measure an axis, once."""

    @functools.cache
    def measured(axis):
        output = tmp_path_factory.mktemp(axis) / "out.json"
        values = ",".join(map(str, VALUES[axis]))
        # the values of `trainable` are by default those that the model has
        flag = axis if axis == "trainable" else f"{axis}={values}"
        result = call(benchmark, *argv, f"--axis={flag}", f"--output={output}")
        assert result.status == 0, result.err
        (found,) = json.loads(output.read_text())["results"]
        return Grown(found, result.out, output.with_name(f"out_{axis}.png"))

    return measured


@pytest.mark.parametrize("axis", VALUES)
def test_the_optimizers_state_is_two_numbers_a_trainable_one(grow, axis):
    rows = grow(axis).rows
    assert [row["value"] for row in rows] == VALUES[axis]
    assert all(row["trainable_bytes"] == 4 * row["trainable"] for row in rows)
    # and the steps that Adam and the schedule have counted
    assert {row["optimizer_bytes"] - 2 * row["trainable_bytes"] for row in rows} == {8}


@pytest.mark.parametrize("axis", ["batch", "depth"])
def test_a_row_or_a_block_more_costs_what_the_last_one_did(grow, axis):
    for name, tolerance in (("flops", 0.01), ("bytes", 0.1)):
        first, second = grow(axis).differences(name)
        assert 0 < first == pytest.approx(second, rel=tolerance)


def test_a_block_more_has_its_own_moments(grow):
    first, second = grow("depth").differences("optimizer_bytes")
    assert 0 < first == second


@pytest.mark.parametrize("axis", ["length", "width"])
def test_length_and_width_cost_between_their_power_one_and_two(grow, axis):
    small, large = grow(axis).rows
    assert 2 < large["flops"] / small["flops"] < 4
    assert large["bytes"] / small["bytes"] < 4


def test_what_is_frozen_costs_a_forward_pass_and_no_state(grow):
    grown = grow("trainable")
    forward = grown.result["forward_flops"]
    assert forward <= grown.rows[0]["flops"] <= 1.05 * forward
    assert grown.rows[-1]["flops"] > 2 * forward
    for name in ("flops", "bytes", "optimizer_bytes"):
        assert min(grown.differences(name)) > 0


def test_groups_cost_next_to_nothing(grow):
    one, four = grow("groups").rows
    assert one["flops"] == pytest.approx(four["flops"], rel=0.02)
    assert one["bytes"] == four["bytes"]


def test_an_axis_has_a_table_a_plot_and_what_they_say(grow):
    grown = grow("batch")
    assert grown.plot.stat().st_size > 5000
    lines = grown.out.splitlines()
    assert lines[0] == f"sst2, {SHAPE}: batch"
    assert [line.split()[0] for line in lines[3:6]] == ["8", "12", "16"]
    assert lines[6].startswith("8 to 16: seconds x")  # not from 12
    assert "outgrow operations" in lines[7]
    assert all(len(row["seconds"]) == 1 for row in grown.rows)


def rows_of(seconds, flops):
    return [
        {"value": 2**i, "seconds": [s, 2 * s], "flops": f, "bytes": f}
        for i, (s, f) in enumerate(zip(seconds, flops, strict=True))
    ]


def test_what_outgrows_its_operations_is_named():
    found = growth.summarize(rows_of([1.0, 2.0, 8.0], [10, 20, 40]))
    assert growth.exponent(found["last_doubling"], "seconds") == pytest.approx(2)
    assert growth.exponent(found["last_doubling"], "flops") == pytest.approx(1)
    said = growth.sentences(found)
    assert said[0].startswith("2 to 4: seconds x4.00 (power 2.00), operations x2.00")
    assert said[1] == (
        "Seconds outgrow operations: at most x2.00 of their growth, 2 to 4."
    )
    found = growth.summarize(rows_of([1.0, 1.5], [10, 20]))
    assert growth.sentences(found)[1].startswith("Seconds do not outgrow operations")


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        ("depth=a", "--axis is 'depth=a'; expected numbers"),
        ("rings=1", "--axis names ['rings']; expected some of ['batch',"),
        ("batch=0,1", "--axis=batch has the value 0"),
        ("trainable=4", "the model has 3 layers below its head"),
        ("groups=99", "parameters move; choose"),
        ("width=9", "choose a multiple of the width of a head"),
    ],
)
def test_a_wrong_axis_is_refused(call, argv, axis, message):
    result = call(benchmark, *argv, f"--axis={axis}")
    assert result.status == 2
    assert message in result.err


def test_images_are_refused(call, tiny):
    result = call(benchmark, "--suite=growth", tiny)
    assert result.status == 2
    assert "growth fills batches with tokens" in result.err
