# SPDX-License-Identifier: Apache-2.0
"""A sweep: the arithmetic of its table, its resuming, its faults."""

import json
import statistics

import pytest

from experiments import sweep

ROWS = ("--args=width=8", "--args=width=16")

CONFIG = """
from typing import Any
from jft.config import parse_arg
from tests.experiments import tiny

def get_config(arg: str | None = None) -> Any:
    config = tiny.get_config()
    width = parse_arg(arg, width=16).width
    with config.unlocked():
        config.model.model_config = tiny.MODEL | {"hidden_size": width}
    return config
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> str:
    """The flag of a config that takes an argument."""
    file = tmp_path_factory.mktemp("config") / "tiny_width.py"
    file.write_text(CONFIG)
    return f"--config={file}"


def test_a_row_is_the_mean_and_the_sample_deviation_of_its_runs(
    call, config, tmp_path, monkeypatch
):
    flags = (config, *ROWS, "--seeds=2", f"--workdir={tmp_path}")
    result = call(sweep, *flags)
    assert result.status == 0, result.err
    file = tmp_path / "results.json"
    first = json.loads(file.read_text())
    assert [(run["args"], run["seed"]) for run in first["runs"]] == [
        ("width=8", 0), ("width=8", 1), ("width=16", 0), ("width=16", 1)
    ]  # fmt: skip
    for row, runs in zip(
        first["table"], (first["runs"][:2], first["runs"][2:]), strict=True
    ):
        for split in ("validation", "test"):
            values = [run[split] for run in runs]
            assert row[split]["mean"] == pytest.approx(sum(values) / 2)
            assert row[split]["sd"] == pytest.approx(
                abs(values[0] - values[1]) / 2**0.5
            )
        assert row["source_before"] == {"mean": None, "sd": None}
    saved = json.loads((tmp_path / "width=8" / "seed1" / "config.json").read_text())
    assert (saved["seed"], saved["data"]["split_seed"]) == (1, 1)
    summary = json.loads((tmp_path / "width=8" / "seed1" / "summary.json").read_text())
    assert first["runs"][1]["test"] == summary["test"]["accuracy"]
    assert first["runs"][1]["validation"] == summary["best"]["accuracy"]

    monkeypatch.setattr(sweep.finetune, "finetune", None)  # nothing is run again
    again = call(sweep, *flags)
    assert again.status == 0, again.err
    assert json.loads(file.read_text()) == first
    assert "width=16" in again.out.splitlines()[-3]


def test_faults_stop_before_the_first_run(call, config, tmp_path):
    refused = call(sweep, config)
    assert refused.status == 2
    assert "--workdir" in refused.err
    refused = call(sweep, config, *ROWS, "--args=depth=3", f"--workdir={tmp_path}")
    assert refused.status == 2
    assert "depth" in refused.err
    refused = call(sweep, config, "--set=seeed=3", f"--workdir={tmp_path}")
    assert refused.status == 2
    assert "seeed" in refused.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("values", "text"), [([], ""), ([0.5], "0.5"), ([0.25, 0.75], "0.5 ± 0.35")]
)
def test_spread_shows_what_is_known(values, text):
    value = {
        "mean": statistics.fmean(values) if values else None,
        "sd": statistics.stdev(values) if len(values) > 1 else None,
    }
    assert sweep.spread(value) == text
