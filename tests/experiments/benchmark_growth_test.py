# SPDX-License-Identifier: Apache-2.0
"""Operations and bytes of a step grow as they should, and what is said of it is so."""

import itertools
import json
from pathlib import Path

import pytest

from experiments import benchmark
from experiments.benchmarks import growth

CONFIGS = Path(__file__).parents[2] / "configs"
# big enough: XLA fuses smaller products into loops, and counts some of them twice
SHAPE = "16x32"
AXES = ("batch=8,12,16", "length=32,64", "depth=1,2,3", "width=16,32",
        "trainable", "groups=1,4")  # fmt: skip


@pytest.fixture(scope="module")
def argv(tiny_bert, reviews):
    config = f"--config={CONFIGS}/sst2.py:pretrained={tiny_bert}"
    few = [f"--shape={SHAPE}", "--steps=1", "--rounds=1"]
    return ["--suite=growth", config, f"--set=data.path={reviews}", *few]


@pytest.fixture(scope="module")
def grown(call, argv, tmp_path_factory):
    """What the suite found, by axis, and the folder that it wrote to."""
    folder = tmp_path_factory.mktemp("growth")
    axes = [f"--axis={axis}" for axis in AXES]
    result = call(benchmark, *argv, *axes, f"--output={folder}/out.json")
    assert result.status == 0, result.err
    results = json.loads((folder / "out.json").read_text())["results"]
    return {one["axis"]: one for one in results}, folder, result.out


def differences(rows, name):
    return [after[name] - before[name] for before, after in itertools.pairwise(rows)]


def test_the_optimizers_state_is_two_numbers_a_trainable_one(grown):
    rows = [row for one in grown[0].values() for row in one["rows"]]
    assert len(rows) == 15
    assert all(row["trainable_bytes"] == 4 * row["trainable"] for row in rows)
    (counters,) = {row["optimizer_bytes"] - 2 * row["trainable_bytes"] for row in rows}
    assert counters in (4, 8)  # Adam's step, and the schedule's where it counts


@pytest.mark.parametrize("axis", ["batch", "depth"])
def test_a_row_or_a_block_more_costs_what_the_last_one_did(grown, axis):
    rows = grown[0][axis]["rows"]
    first, second = differences(rows, "flops")
    assert 0 < first == pytest.approx(second, rel=0.01)
    first, second = differences(rows, "bytes")
    assert 0 < first == pytest.approx(second, rel=0.1)


def test_a_block_more_has_its_own_moments(grown):
    first, second = differences(grown[0]["depth"]["rows"], "optimizer_bytes")
    assert 0 < first == second
    assert set(differences(grown[0]["batch"]["rows"], "optimizer_bytes")) == {0}


@pytest.mark.parametrize("axis", ["length", "width"])
def test_length_and_width_cost_between_their_power_one_and_two(grown, axis):
    small, large = grown[0][axis]["rows"]
    assert 2 < large["flops"] / small["flops"] < 4
    assert large["bytes"] / small["bytes"] < 4


def test_what_is_frozen_costs_a_forward_pass_and_no_state(grown):
    result = grown[0]["trainable"]
    rows, forward = result["rows"], result["forward_flops"]
    assert [row["value"] for row in rows] == [0, 1, 2]  # head, block, embeddings
    assert forward <= rows[0]["flops"] <= 1.05 * forward
    assert 2 * forward < rows[-1]["flops"] < 4 * forward
    for name in ("flops", "bytes", "optimizer_bytes"):
        assert min(differences(rows, name)) > 0


def test_groups_cost_next_to_nothing(grown):
    one, four = grown[0]["groups"]["rows"]
    assert one["optimizer_bytes"] == four["optimizer_bytes"]
    assert one["flops"] == pytest.approx(four["flops"], rel=0.02)


def test_every_axis_has_a_table_a_plot_and_what_they_say(grown):
    results, folder, out = grown
    for axis, result in results.items():
        assert (folder / f"out_{axis}.png").stat().st_size > 5000
        assert f"sst2, {SHAPE}: {axis}" in out
        assert all(len(row["seconds"]) == 1 for row in result["rows"])
    assert out.count("outgrow operations") == len(AXES)
    assert results["depth"]["last_doubling"]["from"] == 1
    assert results["batch"]["last_doubling"]["from"] == 8  # twice 12 is above 16


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
        ("trainable=3", "the model has 2 layers below its head"),
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
