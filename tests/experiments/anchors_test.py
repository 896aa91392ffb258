# SPDX-License-Identifier: Apache-2.0
"""What holds a run to its base: that a run uses it, and what is refused."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import jft
from experiments import build, dataset, finetune, judge, models, run_config
from jft import paths, train
from jft.config import read_config
from tests.experiments.tiny import MODEL

ROOT = Path(__file__).parents[2]

SHORT = [
    "optim.warmup_steps=0",
    "optim.schedule=constant",
    "optim.weight_decay=0.0",
    "evals.eval_every_steps=4",
    "checkpoint.save_every_steps=4",
    "data.augment=None",
]


def overrides(*pairs):
    return [f"--config.{pair}" for pair in pairs]


@pytest.fixture(scope="module")
def run(call, tiny, base, tmp_path_factory):
    """A function: the workdir of a finished run of the small config with overrides."""

    def make(*pairs, flags=()):
        workdir = tmp_path_factory.mktemp("anchors") / "run"
        result = call(
            finetune,
            tiny,
            base,
            f"--workdir={workdir}",
            *overrides(*SHORT, *pairs),
            *flags,
        )
        assert result.status == 0, result.err
        return workdir

    return make


@pytest.fixture(scope="module")
def start(base):
    """The parameters of the base, by key."""
    return load_file(f"{base.partition('=')[2]}/model.safetensors")


def exported(workdir):
    return load_file(workdir / "export" / "model.safetensors")


def distance(workdir, start, part):
    """How far the parameters whose key has ``part`` are from the base."""
    now = exported(workdir)
    keys = [key for key in start if part in key and "classifier" not in key]
    assert keys
    return np.sqrt(sum(np.sum((now[key] - start[key]) ** 2) for key in keys))


@pytest.fixture(scope="module")
def free(run):
    """A run that nothing holds."""
    return run()


# --- L2-SP ----------------------------------------------------------------------------
def test_a_rule_of_l2_sp_holds_what_it_names(run, free, start):
    rules = "optim.l2_sp_rules=[['vit/encoder/.*',300.0]]"
    held = run(rules)
    assert distance(held, start, "encoder") < 0.7 * distance(free, start, "encoder")
    elsewhere = distance(held, start, "embeddings")
    assert elsewhere == pytest.approx(distance(free, start, "embeddings"), rel=0.2)


@pytest.mark.parametrize("replaces", [False, True])
def test_what_is_pulled_to_its_start_may_be_spared_the_decay(tiny, base, replaces):
    overrides = {
        "model.pretrained": base.partition("=")[2],
        "optim.l2_sp": 3.0,
        "optim.l2_sp_rules": [["vit/embeddings/.*", 0.0]],
        "optim.l2_sp_replaces_decay": replaces,
        "optim.weight_decay": 0.5,
        "optim.warmup_steps": 0,
    }
    job = build.make_job(run_config.load(tiny.partition("=")[2], overrides))
    params = job.model.params
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = job.tx.update(zeros, job.tx.init(params), params)
    moves = {path: bool(np.any(x != 0)) for path, x in paths.flatten(updates).items()}
    # biases, norms and positions never decay; what is new or not pulled always does
    assert moves["classifier/kernel"]
    assert moves["vit/embeddings/patch_embeddings/projection/kernel"]
    assert not moves["classifier/bias"]
    query = "vit/encoder/layer/0/attention/attention/query/kernel"
    assert moves[query] is not replaces
    said = "leaves, such as vit/encoder/layer/0" in build.describe(job)
    assert said is not replaces


# --- EWC ------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def digits_base(tmp_path_factory):
    """The folder of a model whose own task is digits, so that it can be asked."""
    settings = {"model_type": "vit", **MODEL}
    model = jft.init_model(
        settings,
        key=jax.random.key(1),
        class_names=tuple("0123456789"),
        processor=models.processor_config_of(settings),
    )
    folder = tmp_path_factory.mktemp("digits")
    jft.save(folder, model)
    return folder


def test_ewc_moves_a_run_and_a_resumed_run_has_its_fisher(
    call, tiny, digits_base, tmp_path, monkeypatch
):
    def run(strength, name):
        pairs = [
            f"model.pretrained={digits_base}",
            "source.name=digits",
            "source.split_sizes={'train':16,'test':40}",
            f"optim.ewc.strength={strength}",
            "checkpoint.save_every_steps=2",
        ]
        words = [f"--workdir={tmp_path / name}", *overrides(*SHORT, *pairs)]
        result = call(finetune, tiny, *words)
        assert result.status == 0, result.err
        return tmp_path / name

    free, held = run(0.0, "free"), run(1e3, "held")
    whole = exported(held)
    moved = [
        key for key in whole if not np.array_equal(whole[key], exported(free)[key])
    ]
    assert len(moved) > len(whole) / 2
    (held / "summary.json").unlink()
    shutil.rmtree(held / "export")
    shutil.rmtree(held / "checkpoints" / "00000004")
    monkeypatch.setattr(train, "diagonal_fisher", None)  # so that a call would fail
    run(1e3, "held")
    for key, value in exported(held).items():
        np.testing.assert_array_equal(value, whole[key], err_msg=key)


# --- SWA ------------------------------------------------------------------------------
def test_a_run_exports_the_mean_of_its_last_points(run, tiny):
    swa = ["optim.swa_start_steps=1", "optim.swa_every_steps=2"]
    steps = ["train.num_steps=4", "evals.eval_every_steps=4"]
    mean = exported(run(*swa, *steps))
    points = []
    for step in (2, 4):  # after steps 2 and 4
        points.append(
            exported(run(f"train.num_steps={step}", "evals.eval_every_steps=4"))
        )
    for key, value in mean.items():
        expected = (points[0][key] + points[1][key]) / 2
        np.testing.assert_allclose(value, expected, atol=1e-6, err_msg=key)
    assert (
        np.abs(points[1]["classifier.weight"] - mean["classifier.weight"]).max() > 1e-4
    )


def test_a_mean_of_layers_that_closed_again_is_not_evaluated_on_kept_rows(run):
    pairs = [
        "optim.swa_start_steps=0",
        "optim.swa_every_steps=1",
        "optim.learning_rate=0.05",
        "optim.unfreeze.method=chain_thaw",
        "optim.unfreeze.every_steps=3",
        "train.num_steps=12",
        "evals.eval_every_steps=1",
        "data.global_batch_size=40",  # each step is an epoch
    ]

    def losses(use):
        workdir = run(*pairs, f"train.cache.use={use}")
        lines = (workdir / "metrics.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        return [r["loss"] for r in records if r["split"] == "validation"]

    np.testing.assert_allclose(losses("on"), losses("off"), rtol=1e-5)


# --- mixout ---------------------------------------------------------------------------
def test_mixout_trains_a_run_and_is_not_in_its_evaluation(run, free):
    mixed = run("train.mixout=0.8")
    assert not np.allclose(
        exported(mixed)["classifier.weight"], exported(free)["classifier.weight"]
    )
    # the test split's figures are those of the exported weights, as they are
    result = json.loads((mixed / "summary.json").read_text())["test"]
    model = jft.load(mixed / "export")
    splits = dataset.load_examples(read_config(mixed))
    evaluate = judge.Evaluator(read_config(mixed), model)
    scores = evaluate(model.params, splits["test"]).scores
    assert scores["loss"] == pytest.approx(result["loss"], rel=1e-5)


# --- new top blocks -------------------------------------------------------------------
def test_a_run_draws_its_top_blocks_new(run, start):
    still = ["train.num_steps=1", "optim.learning_rate=1e-9"]
    after = exported(run("model.reinit_layers=1", *still))
    for key in start.keys() - {"classifier.bias", "classifier.weight"}:
        same = np.allclose(after[key], start[key], atol=1e-6)
        if "encoder.layer.0" in key and "query.weight" in key:
            assert not same, key
        elif "embeddings" in key:
            assert same, key


# --- Auto-RGN -------------------------------------------------------------------------
def test_a_run_scales_rates_by_relative_gradients(run, free, start):
    scaled = run("optim.auto_rgn_every_steps=1")
    assert distance(scaled, start, "embeddings") < distance(free, start, "embeddings")


# --- bad input ------------------------------------------------------------------------
# overrides -> words of the message; with the base, and without
FROM_SCRATCH = [
    (["optim.l2_sp=0.1"], ["optim.l2_sp is 0.1", "nothing to return to"]),
    (["optim.l2_sp_rules=[['.*',1.0]]"], ["optim.l2_sp_rules", "nothing to return to"]),
    (["optim.ewc.strength=1.0"], ["optim.ewc.strength", "nothing to return to"]),
    (["model.reinit_layers=1"], ["model.reinit_layers is 1", "drawn new"]),
    (["train.mixout=0.5"], ["train.mixout", "nothing to return to"]),
]
REFUSED = [
    (["optim.l2_sp=-1.0"], ["optim.l2_sp", "-1.0"]),
    (["optim.l2_sp_rules=[['.*',-1.0]]"], ["optim.l2_sp_rules[0][1]", "-1.0"]),
    (["optim.l2_sp_rules=[['bert/.*',1.0]]"], ["bert/.*", "win no path"]),
    (
        ["optim.l2_sp=0.1", "partition.rules=[['classifier/.*','h'],['.*','frozen']]"],
        ["optim.l2_sp", "none of those that move"],
    ),
    (["optim.ewc.strength=1.0"], ["optim.ewc.strength", "no data to learn from"]),
    (
        [
            "optim.ewc.strength=1.0",
            "source.name=digits",
            "source.split_sizes={'test':0.5}",
        ],
        ["optim.ewc.strength", "no data to learn from"],
    ),
    (
        [
            "optim.ewc.strength=1.0",
            "source.name=digits",
            "source.split_sizes={'train':0.5,'test':0.5}",
            "model.reinit_layers=1",
        ],
        ["optim.ewc.strength", "model.reinit_layers is 1"],
    ),
    (["optim.ewc.strength=-1.0"], ["optim.ewc.strength", "-1.0"]),
    (["optim.swa_start_percent=100"], ["optim.swa_start", "100 percent", "step 4"]),
    (["optim.swa_start_steps=-1"], ["optim.swa_start_steps", "-1"]),
    (
        ["optim.swa_start_percent=50", "optim.ema_decay=0.9"],
        ["ema_decay is 0.9", "two averages"],
    ),
    (
        ["optim.swa_start_percent=50", "optim.optimizer=schedule_free_sgd"],
        ["schedule_free_sgd", "swa"],
    ),
    (["model.reinit_layers=2"], ["reinit_layers is 2", "has 1 blocks", "0 to 1"]),
    (
        [
            "model.reinit_layers=1",
            "partition.rules=[['.*/layer/.*','frozen'],['.*','h']]",
        ],
        ["new parameters are frozen", "layer/0"],
    ),
    (
        ["optim.auto_rgn_every_steps=1", "optim.unfreeze.method=top_down"],
        ["auto_rgn", "open_at"],
    ),
    (["train.mixout=1.0"], ["train.mixout", "1.0", "below 1"]),
    (["train.mixout=0.5", "adapter.method=lora"], ["train.mixout", "an adapter's"]),
    (["optim.ewc.targets=both"], ["'model', 'data'"]),
    (
        ["optim.l2_sp=0.1", "adapter.method=lora"],
        ["optim.l2_sp", "an adapter's"],
    ),
]
CASES = [
    *((pairs, words, False) for pairs, words in FROM_SCRATCH),
    *((pairs, words, True) for pairs, words in REFUSED),
]


@pytest.mark.parametrize(("pairs", "words", "has_base"), CASES, ids=str)
def test_what_means_nothing_is_refused(
    pairs, words, has_base, call, tiny, base, tmp_path
):
    flags = [base] if has_base else []
    workdir = f"--workdir={tmp_path / 'run'}"
    result = call(finetune, tiny, *flags, workdir, *overrides(*pairs))
    assert result.status == 2, result
    assert result.err.count("\n") == 1, result.err
    missing = [word for word in words if word not in result.err]
    assert not missing, (missing, result.err)
    assert not (tmp_path / "run" / "checkpoints").exists()
