# SPDX-License-Identifier: Apache-2.0
"""Models between a run and its base, and averages of runs, as the scripts make them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments import build, finetune, interpolate, run_config, soup
from jft.config import load_config_file, resolve
from jft.types import InputError

RUN = [
    "optim.learning_rate=0.01",
    "optim.schedule=constant",
    "evals.eval_every_steps=4",
    "checkpoint.save_every_steps=4",
]


@pytest.fixture(scope="module")
def finished(call, tiny, base, tmp_path_factory):
    """A function: a finished run of the small config on a base. Only read it."""

    def make(*pairs):
        workdir = tmp_path_factory.mktemp("finished") / "run"
        words = [f"--workdir={workdir}", *(f"--config.{x}" for x in [*RUN, *pairs])]
        result = call(finetune, tiny, base, *words)
        assert result.status == 0, result.err
        return workdir

    return make


@pytest.fixture(scope="module")
def one_run(finished):
    return finished()


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_a_finished_run_is_interpolated_scored_and_exported(
    call, base, one_run, tmp_path
):
    workdir = shutil.copytree(one_run, tmp_path / "run")
    result = call(
        interpolate, f"--workdir={workdir}", "--alphas=0,0.5,1", "--export_alpha=0.5"
    )
    assert result.status == 0, result.err
    written = json.loads((workdir / "wise_ft" / "results.json").read_text())
    test = json.loads((workdir / "summary.json").read_text())["test"]
    curve = written["curve"]
    assert [point["alpha"] for point in curve] == [0.0, 0.5, 1.0]
    assert curve[2]["test"]["loss"] == pytest.approx(test["loss"], rel=1e-5)
    assert curve[0]["test"]["loss"] != pytest.approx(test["loss"], rel=1e-5)
    assert not (workdir / "wise_ft" / "curve.png").exists()  # without a source task

    start, end = weights(base_folder(base)), weights(workdir / "export")
    point = weights(workdir / "wise_ft" / "export")
    assert point.keys() == end.keys()
    for key, value in point.items():
        middle = end[key] if "classifier" in key else (start[key] + end[key]) / 2
        np.testing.assert_allclose(value, middle, atol=1e-6, err_msg=key)


def base_folder(flag):
    return Path(flag.partition("=")[2])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--alphas=0,2"], "numbers from 0 to 1"),
        (["--alphas=a"], "numbers from 0 to 1"),
        (["--workdir=/nowhere"], "/nowhere"),
    ],
)
def test_bad_points_are_refused(call, one_run, words, expected):
    result = call(interpolate, f"--workdir={one_run}", *words)
    assert result.status == 2, result
    assert result.err.count("\n") == 1, result.err
    assert expected in result.err
    assert not (one_run / "wise_ft").exists()


def test_a_run_from_scratch_has_no_base(tiny):
    _, config = load_config_file(tiny.partition("=")[2])
    job = build.make_job(run_config.complete(resolve(config)))
    with pytest.raises(InputError, match=r"pretrained is None.* has no base"):
        interpolate.ends(job, job.model.params)


# --- soups ----------------------------------------------------------------------------
@pytest.fixture(scope="module")
def other_run(finished):
    return finished("seed=1", "optim.learning_rate=0.003")


@pytest.mark.parametrize("method", ["uniform", "greedy"])
def test_a_soup_of_two_runs_is_scored_and_written(
    call, one_run, other_run, method, tmp_path
):
    result = call(
        soup,
        f"--runs={one_run}",
        f"--runs={other_run}",
        f"--method={method}",
        f"--to={tmp_path / 'soup'}",
    )
    assert result.status == 0, result.err
    written = json.loads((tmp_path / "soup" / "soup.json").read_text())
    scores = [run["validation"]["accuracy"] for run in written["runs"]]
    assert written["soup"]["validation"]["accuracy"] >= max(scores) or (
        method == "uniform"
    )
    chosen = [run["workdir"] for run in written["runs"] if run["chosen"]]
    assert str(one_run) in chosen or str(other_run) in chosen
    whole = [weights(Path(workdir) / "export") for workdir in chosen]
    for key, value in weights(tmp_path / "soup").items():
        mean = np.mean([model[key] for model in whole], axis=0)
        np.testing.assert_allclose(value, mean, atol=1e-6, err_msg=key)
    if method == "uniform":
        assert len(chosen) == 2


def test_runs_that_cannot_be_mixed_are_refused(call, one_run, finished, tmp_path):
    unlike = finished("data.split_seed=1")
    for words, expected in (
        ([f"--runs={one_run}"], "two or more"),
        ([f"--runs={one_run}", f"--runs={unlike}"], "data.split_seed"),
        ([f"--runs={one_run}", f"--runs={tmp_path}"], str(tmp_path)),
    ):
        result = call(soup, *words, f"--to={tmp_path / 'soup'}")
        assert result.status == 2, result
        assert result.err.count("\n") == 1, result.err
        assert expected in result.err
    assert not (tmp_path / "soup").exists()
