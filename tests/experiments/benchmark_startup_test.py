# SPDX-License-Identifier: Apache-2.0
"""A start is a process of its own, and a warm one finds what the cold one compiled."""

import json
import os
from pathlib import Path

import pytest

from experiments import benchmark
from experiments.benchmarks import startup

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def argv(tiny_bert, reviews):
    config = f"--config={CONFIGS}/sst2.py:pretrained={tiny_bert}"
    return ["--suite=startup", "--rounds=1", config, f"--set=data.path={reviews}"]


def test_a_warm_start_finds_the_program_of_the_cold_one(call, argv, tmp_path):
    output = tmp_path / "out.json"
    result = call(benchmark, *argv, f"--output={output}")
    assert result.status == 0, result.err
    (found,) = json.loads(output.read_text())["results"]
    for start in startup.STARTS:
        assert set(found[start]) == {*startup.COLUMNS, "found"}
        assert all(len(values) == 1 for values in found[start].values())
        parts = {part: values[0] for part, values in found[start].items()}
        assert 0 < parts["xla"] < parts["compile"]
        whole = ("import", "job", "compile", "step")
        assert sum(parts[part] for part in whole) < parts["total"]
    assert found["cold"]["found"] == [0]
    assert found["warm"]["found"] == [1]
    assert len(found["ratio"]) == len(found["xla_ratio"]) == 1
    assert "at most 0.25 is wanted" in result.out


def test_what_the_process_refuses_is_said(call, argv, tmp_path):
    output = tmp_path / "out.json"
    wrong = ["--set=optim.schedule=steps", f"--output={output}"]
    result = call(benchmark, *argv, *wrong)
    assert result.status == 2
    assert result.err.count("error: ") == 1
    assert "'steps'" in result.err
    assert not output.exists()


def test_a_start_keeps_its_programs_where_it_is_told(monkeypatch):
    """Not where this process has its own."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/elsewhere")
    monkeypatch.setenv("PYTHONPATH", "/more")
    settings = benchmark.Settings(
        **dict.fromkeys(benchmark.Settings._fields, None) | {"device": "gpu"}
    )
    made = startup.environment(settings, "/empty")
    assert "JAX_COMPILATION_CACHE_DIR" not in made
    assert made["JFT_CACHE"] == "/empty"
    assert made["JAX_PLATFORMS"] == "cuda"
    root, more = made["PYTHONPATH"].split(os.pathsep)
    assert (Path(root) / "experiments").is_dir()
    assert more == "/more"
