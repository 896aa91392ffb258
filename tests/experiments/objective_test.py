# SPDX-License-Identifier: Apache-2.0
"""What a config adds to the loss: it is trained on, and never measured by."""

import functools
import json
from pathlib import Path

import jax
import numpy as np
import pytest

import jft
from experiments import finetune, objective
from jft.data import ArraySource, Column, make_examples
from jft.types import InputError
from tests.experiments.conftest import BERT
from tests.tiny_tokenizer import make_tokenizer

ROOT = Path(__file__).parents[2]
OPTIONS = {
    "plain": [],
    "balanced": ["train.loss_options.class_weights=balanced"],
    "smoothed": ["train.loss_options.label_smoothing=0.1"],
    "focal": ["train.loss_options.focal_gamma=2"],
    "r_drop": ["train.r_drop=1.0"],
    "teacher": ["train.teacher.model={other}"],
}


@pytest.fixture(scope="module")
def run(call, tmp_path_factory):
    """A function: the records of a run that hardly moves, with one of the options."""
    folder = tmp_path_factory.mktemp("objective")
    mails = [f"{'a film good bad'[i % 12 :]} plot,{'aab'[i % 3]}\n" for i in range(48)]
    (folder / "mails.csv").write_text("text,targets\n" + "".join(mails))
    for seed, name in enumerate(("base", "other")):  # of which the heads are kept
        model = jft.init_model(
            BERT,
            key=jax.random.key(seed),
            task="sequence_classification",
            class_names=("a", "b"),
            processor=make_tokenizer(model_max_length=64),
        )
        # sure of something, or there is nothing to shape
        params = jax.tree.map(lambda x: 10 * x, model.params)
        jft.save(folder / name, model, params=params)

    @functools.cache
    def make(name):
        overrides = [
            "data.global_batch_size=8",
            "data.max_length=32",
            "data.num_lengths=1",
            f"model.pretrained={folder / 'base'}",
            "optim.learning_rate=1e-9",
            "train.num_steps=2",
            "train.log_every_steps=1",
            "evals.eval_every_steps=2",
            "export.enabled=False",
            *OPTIONS[name],
        ]
        result = call(
            finetune,
            f"--config={ROOT}/configs/own.py:source=csv,path={folder / 'mails.csv'}",
            *(f"--config.{x.format(other=folder / 'other')}" for x in overrides),
            f"--workdir={folder / name}",
        )
        assert result.status == 0, result.err
        lines = (folder / name / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    return make


@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "plain"])
def test_training_has_another_loss_and_evaluation_the_same(name, run):
    plain, other = run("plain"), run(name)
    assert [r["step"] for r in other] == [r["step"] for r in plain] == [1, 2, 2]
    for one, two in zip(plain, other, strict=True):
        assert one["split"] == two["split"]
        if one["split"] == "train":
            assert np.isfinite(two["loss"])
            assert abs(two["loss"] - one["loss"]) > 1e-4
        else:
            assert two["loss"] == pytest.approx(one["loss"], abs=1e-6)
            assert two["accuracy"] == one["accuracy"]


# --- words in parts -------------------------------------------------------------------
ADDED = {"plain": [], "teacher": ["train.teacher.model={teacher}"],
         "r_drop": ["train.r_drop=1.0"]}  # fmt: skip


@pytest.mark.parametrize("name", ADDED)
def test_a_run_whose_words_are_scored_in_parts_is_the_same(name, call, tmp_path):
    """Hidden words, dropout and evaluation; R-Drop itself needs all logits at once."""
    sentences = [f"{'a film good bad'[i % 12 :]} plot a cast" for i in range(48)]
    (tmp_path / "texts.csv").write_text("text\n" + "\n".join(sentences) + "\n")
    model = jft.init_model(
        BERT,
        key=jax.random.key(1),
        task="masked_lm",
        processor=make_tokenizer(model_max_length=64),
    )
    jft.save(tmp_path / "teacher", model)
    found = []
    # R-Drop refuses a size: all at once is what it takes by itself
    for size in (0, None if name == "r_drop" else 2):
        overrides = [
            "data.global_batch_size=8",
            "data.max_length=16",
            "data.batching=pack",
            f"model.pretrained={tmp_path / 'teacher'}",
            f"train.loss_chunk={size}",
            "train.loss_options.label_smoothing=0.1",
            "train.num_steps=3",
            "train.log_every_steps=1",
            "evals.eval_every_steps=3",
            "export.enabled=False",
            *ADDED[name],
        ]
        workdir = tmp_path / f"run-{size}"
        result = call(
            finetune,
            f"--config={ROOT}/configs/own.py:task=masked_lm,source=csv,"
            f"path={tmp_path / 'texts.csv'}",
            *(f"--config.{x.format(teacher=tmp_path / 'teacher')}" for x in overrides),
            f"--workdir={workdir}",
        )
        assert result.status == 0, result.err
        lines = (workdir / "metrics.jsonl").read_text().splitlines()
        found.append([json.loads(line) for line in lines])
    assert len(found[0]) == 4
    for one, other in zip(*found, strict=True):
        for metric in ("loss", "token_accuracy", "perplexity", "grad_norm"):
            if metric in one:
                assert other[metric] == pytest.approx(one[metric], rel=1e-4), metric


# --- class weights --------------------------------------------------------------------
CLASSES = make_examples(
    ArraySource({"text": list("abcd"), "targets": ["x", "x", "x", "y"]}),
    (Column("text", "text"), Column("targets", "class")),
)
TAGS = make_examples(
    ArraySource({"words": [["a", "b"], ["c"]], "targets": [["O", "O"], ["B-X"]]}),
    (Column("words", "words"), Column("targets", "tags")),
)
SETS = make_examples(
    ArraySource({"text": list("abcd"), "targets": ["x", "x,y", "x", ""]}),
    (Column("text", "text"), Column("targets", "classes")),
)


@pytest.mark.parametrize(
    ("examples", "expected"),
    [
        (CLASSES, [4 / (2 * 3), 4 / (2 * 1)]),
        (TAGS, [3 / (2 * 2), 3 / (2 * 1)]),
        (SETS, [1 / 3, 3 / 1]),  # those without it by those with it
    ],
    ids=["classes", "tags", "sets"],
)
def test_balanced_weights_are_of_all_targets(examples, expected):
    weights = objective.class_weights("balanced", examples)
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_weights_are_one_a_class():
    given = objective.class_weights((1.0, 0.0), CLASSES)
    assert given.tolist() == [1.0, 0.0]
    for wrong in ((1.0,), (1.0, -1.0), ("a", "b"), 2.0, "equal"):
        with pytest.raises(InputError, match=r"class_weights is .*'x', 'y'"):
            objective.class_weights(wrong, CLASSES)
