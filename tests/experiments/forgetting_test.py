# SPDX-License-Identifier: Apache-2.0
"""Ways to fine-tune are compared on the old task and the new, from one command."""

import json
from pathlib import Path

import pytest

from configs.forgetting import METHODS
from experiments import build, forgetting, run_config

ROOT = Path(__file__).parents[2]
SMALL = (
    f"--config={ROOT / 'configs' / 'forgetting.py'}:quicktest",
    "--set=data.global_batch_size=12",
    "--set=train.num_steps=6",
    "--set=data.split_sizes={'train': 10, 'validation': 4, 'test': 8}",
    "--set=source.options={'num_per_class': 6, 'seed': 1}",
    "--set=source.split_sizes={'train': 3, 'test': 3}",
)


@pytest.fixture(scope="module")
def compared(call, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("forgetting")
    words = ["--methods=full,head", "--seeds=1", "--alphas=0,1"]
    result = call(forgetting, *SMALL, *words, f"--workdir={workdir}")
    assert result.status == 0, result.err
    return json.loads((workdir / "results.json").read_text()), workdir, result.out


def test_each_method_has_its_scores_and_its_cost(compared):
    results, workdir, out = compared
    table = results["table"]
    assert set(table) == {"full", "head", "wise_ft 0", "wise_ft 1"}
    assert table["full"]["cost"] == 1
    assert 0.2 < table["head"]["cost"] < 0.5  # next to no backward pass
    assert table["head"]["trainable"] < table["full"]["trainable"] / 50
    for name in ("full", "head"):
        summary = json.loads(
            (workdir / f"method={name}" / "seed0" / "summary.json").read_text()
        )
        assert table[name]["test"]["mean"] == summary["test"]["accuracy"]
        after = summary["forgetting"]["after"]
        assert table[name]["source_after"]["mean"] == after
    assert [line.split()[0] for line in out.splitlines() if " 1.00 " in line]
    assert (workdir / "methods.png").stat().st_size > 10_000


def test_what_does_not_touch_the_body_forgets_nothing(compared):
    row = compared[0]["table"]["head"]
    assert row["source_after"]["mean"] == row["source_before"]["mean"]


def test_wise_ft_ends_at_the_base_and_at_the_run(compared):
    table = compared[0]["table"]
    full, before = table["full"], table["full"]["source_before"]["mean"]
    assert table["wise_ft 0"]["source_after"]["mean"] == pytest.approx(before)
    for name in ("test", "source_after"):
        assert table["wise_ft 1"][name]["mean"] == pytest.approx(full[name]["mean"])


def test_records_of_both_tasks_are_kept(compared):
    (run,) = compared[0]["runs"]["full"]
    assert {r["split"] for r in run["history"]} == {"validation", "source"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--methods=head"], "without 'full'"),
        (["--methods=full,magic"], "magic"),
        (["--alphas=2"], "numbers from 0 to 1"),
    ],
)
def test_faults_are_said_before_anything_runs(words, said, call, tmp_path):
    result = call(forgetting, *SMALL, *words, f"--workdir={tmp_path / 'out'}")
    assert result.status == 2
    assert said in result.err
    assert not (tmp_path / "out").exists()


def test_every_method_of_the_config_has_its_colour():
    from jft.evals.methods_plot import _COLOURS

    assert set(METHODS) == set(_COLOURS)


def test_the_best_is_first_whichever_way_its_metrics_go():
    def row(test, source):
        means = {"test": test, "source_after": source, "source_before": 30.0}
        spread = {name: {"mean": x, "sd": None} for name, x in means.items()}
        return {"runs": 1, "trainable": 1, "cost": 1.0, **spread}

    table = {"worst": row(90.0, 40.0), "best": row(20.0, 31.0), "between": row(50, 35)}
    for metrics, order in (
        ({"test": "perplexity", "source": "loss"}, ["best", "between", "worst"]),
        ({"test": "accuracy", "source": "macro_f1"}, ["worst", "between", "best"]),
        # 40 - 90, 31 - 20, 35 - 50
        ({"test": "perplexity", "source": "accuracy"}, ["best", "between", "worst"]),
    ):
        lines = map(str.split, forgetting.describe(table, metrics).splitlines())
        assert [words[0] for words in lines if words[:1] and words[0] in table] == order


def test_what_l2_sp_pulls_does_not_decay_beside():
    spec = f"{ROOT / 'configs' / 'forgetting.py'}:method=l2_sp,quicktest"
    config = run_config.load(spec, {"data.global_batch_size": 12})
    assert config.optim.weight_decay > 0
    assert "optim.l2_sp" not in build.describe(build.make_job(config))
