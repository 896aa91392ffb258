# SPDX-License-Identifier: Apache-2.0
"""The scripts on texts, end to end: a small BERT learns small reviews."""

import dataclasses
import functools
import io
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from huggingface_hub import ModelCard

import jft
from experiments import (
    activations,
    build,
    evaluate,
    export,
    feed,
    finetune,
    predict,
    run_config,
)
from jft import data, train
from jft.data.batches.collate import pad_rows
from tests.experiments.bad_input_test import assert_refused, assert_untrained
from tests.experiments.finetune_test import read_records, read_summary, read_table

SST2 = f"{Path(__file__).parents[2]}/configs/sst2.py"


def config_flags(tiny_bert, reviews):
    return [
        f"--config={SST2}:quicktest,pretrained={tiny_bert}",
        f"--config.data.path={reviews}",
        "--config.data.global_batch_size=16",
    ]


@pytest.fixture(scope="session")
def text_run(call, tiny_bert, reviews, tmp_path_factory):
    """A finished run of ``configs/sst2.py`` on small reviews. Only read it."""
    workdir = tmp_path_factory.mktemp("text") / "run"
    result = call(
        finetune,
        *config_flags(tiny_bert, reviews),
        f"--workdir={workdir}",
        "--config.optim.learning_rate=3e-2",
        "--config.train.num_steps=60",
        "--config.seed=1",
    )
    assert result.status == 0, result.err
    return workdir


def test_a_run_learns_and_leaves_a_model_with_its_tokenizer(text_run):
    summary = read_summary(text_run)
    assert summary["test"]["examples"] == 24
    assert summary["test"]["accuracy"] > 0.9  # chance is 0.5
    assert read_records(text_run, "validation")[0]["step"] == 6
    assert {path.name for path in (text_run / "export").iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    model = jft.load(text_run / "export")
    assert model.class_names == ("negative", "positive")
    assert model.task == "sequence_classification"
    assert {path.name for path in (text_run / "plots").iterdir()} == {
        "confusion.png",
        "curves.png",
        "learning_rates.png",
        "lengths.png",
    }


def test_examples_that_share_rows_are_answered_as_alone(tiny_bert, reviews):
    """Logits of training batches and of whole evaluations."""
    config = run_config.load(
        SST2,
        {
            "data.path": str(reviews),
            "data.global_batch_size": 16,
            "data.batching": "pack",
            "model.pretrained": str(tiny_bert),
        },
    )
    job = build.make_job(config)
    assert any("rows" in shape for shape in job.loader.shapes)
    table = job.tables["validation"]
    apply_fn = jax.jit(functools.partial(job.model.apply_fn, key=None))

    def answers(batches):
        found = {}
        for batch in batches:
            logits = apply_fn(job.model.params, batch)
            for index, row in zip(batch["index"], logits, strict=True):
                found[int(index)] = row
        return np.stack([found[i] for i in range(len(table))])

    shared = list(feed.make_eval_batches(config.data, table, job.model))
    alone = list(data.make_eval_batches(table, global_batch_size=16))
    assert "first_tokens" in shared[0]
    assert shared[0]["input_ids"].size < alone[0]["input_ids"].size
    np.testing.assert_allclose(answers(shared), answers(alone), atol=1e-5)

    batch = job.loader.pipeline[3]
    rows = [job.tables["train"].read(int(i)) for i in batch["index"]]
    padded = pad_rows(rows, {"input": 64}, padding=job.tables["train"].padding)
    logits = apply_fn(job.model.params, batch)
    expected = apply_fn(job.model.params, padded)
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert jax.device_count() > 1
    spread = train.shard_batch(batch, train.make_mesh())
    np.testing.assert_allclose(apply_fn(job.model.params, spread), expected, atol=1e-5)


@pytest.mark.parametrize(("batching", "side"), [("pack", "right"), ("length", "left")])
def test_rows_to_keep_begin_where_their_batches_have_them(
    batching, side, tiny_bert, reviews, tmp_path
):
    """A tokenizer that pads left; what shared rows is taken apart to the left."""
    folder = tmp_path / "bert"
    shutil.copytree(tiny_bert, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["padding_side"] = "left"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    overrides = {
        "data.path": str(reviews),
        "data.batching": batching,
        "model.pretrained": str(folder),
    }
    job = build.make_job(run_config.load(SST2, overrides))
    rows = activations.rows_of(job, "validation")
    assert rows.padding_side == side
    for batch in rows.batches:
        alone = data.unpack_batch(batch)
        real = alone["attention_mask"][alone["index"] >= 0]
        assert real[:, 0 if side == "right" else -1].all()


def test_a_model_that_cannot_share_rows_is_scored_all_the_same(tiny_bert, reviews):
    overrides = {"data.path": str(reviews), "model.pretrained": str(tiny_bert)}
    job = build.make_job(run_config.load(SST2, overrides))
    family = dataclasses.replace(job.model.family, packed_heads=lambda config: ())
    other = job.model._replace(family=family)
    for model, shared in ((job.model, True), (other, False)):
        batches = feed.make_eval_batches(job.config.data, job.tables["test"], model)
        assert ("first_tokens" in batches.batch_fn(0)) == shared


def test_the_card_is_of_a_classifier_of_texts(text_run, tiny_bert):
    card = ModelCard((text_run / "export" / "README.md").read_text())
    assert card.data.pipeline_tag == "text-classification"
    assert card.data.model_name == "bert-reviews"
    assert card.data.base_model == tiny_bert.name  # not the place where it lies
    assert str(tiny_bert.parent) not in card.content
    for words in (
        "A BertForSequenceClassification that tells apart the 2 classes of reviews",
        "It sorts texts like those of its training data",
        "train 96, validation 24, test 24 examples",
        "'validation': 'dev.tsv'",
    ):
        assert words in card.content
    assert "image" not in card.content


def test_evaluate_gives_a_run_and_its_export_the_same_scores(
    call, text_run, reviews, tmp_path
):
    config = tmp_path / "here.py"
    config.write_text(
        "from configs import sst2\n"
        "def get_config():\n"
        "    config = sst2.get_config()\n"
        f"    config.data.path = {str(reviews)!r}\n"
        "    config.data.global_batch_size = 16\n"
        "    return config\n"
    )
    run = call(evaluate, f"--workdir={text_run}", "--split=validation")
    flags = [f"--model={text_run / 'export'}", f"--config={config}"]
    folder = call(evaluate, *flags, "--split=validation")
    assert (run.status, folder.status) == (0, 0), (run.err, folder.err)
    assert run.out == folder.out
    best = read_summary(text_run)["best"]
    assert float(read_table(run.out)["loss"]) == pytest.approx(best["loss"], rel=1e-3)


TEXTS = ["a good film", "Bad plot!", "great cast, great plot and films " * 3, "zzz"]


def test_predict_writes_a_line_a_text(call, text_run, tmp_path, monkeypatch):
    flags = [f"--model={text_run / 'export'}"]
    result = call(predict, *flags, *(f"--texts={text}" for text in TEXTS))
    assert result.status == 0, result.err
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert [line["text"] for line in lines] == TEXTS
    assert [line["class"] for line in lines[:2]] == ["positive", "negative"]
    assert set(lines[0]) == {"text", "class", "probability", "probabilities"}
    # a file, the standard input, a run and small batches say the same
    (tmp_path / "in.txt").write_text("\n".join(TEXTS) + "\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(TEXTS)))
    others = [
        [*flags, f"--inputs={tmp_path / 'in.txt'}", "--batch_size=3"],
        [*flags, "--inputs=-"],
        [f"--workdir={text_run}", f"--inputs={tmp_path / 'in.txt'}"],
    ]
    for argv in others:
        result = call(predict, *argv)
        assert result.status == 0, result.err
        again = [json.loads(line) for line in result.out.splitlines()]
        assert [line["text"] for line in again] == TEXTS
        for one, other in zip(lines, again, strict=True):
            assert other["class"] == one["class"]
            assert other["probability"] == pytest.approx(one["probability"], abs=1e-5)


def test_predict_reads_pairs(call, text_run):
    result = call(
        predict, f"--model={text_run / 'export'}", "--pairs", "--texts=a film\tbad plot"
    )
    assert result.status == 0, result.err
    line = json.loads(result.out)
    assert (line["text"], line["text_pair"]) == ("a film", "bad plot")
    model = jft.load(text_run / "export")
    tokens = model.processor("a film", "bad plot", return_tensors="np")
    batch = {name: x.astype(np.int32) for name, x in tokens.items()}
    logits = model.apply_fn(model.params, batch, key=None)
    expected = jax.nn.softmax(logits)[0, model.class_names.index(line["class"])]
    assert line["probability"] == pytest.approx(float(expected), abs=1e-5)


def test_transformers_reads_it_and_says_the_same(call, text_run):
    pytest.importorskip("torch", reason="torch is in the parity extra")
    from transformers import pipeline

    classify = pipeline("text-classification", model=str(text_run / "export"))
    result = call(
        predict,
        f"--model={text_run / 'export'}",
        *(f"--texts={text}" for text in TEXTS),
    )
    lines = [json.loads(line) for line in result.out.splitlines()]
    for line, theirs in zip(lines, classify(TEXTS), strict=True):
        assert theirs["label"] == line["class"]
        assert theirs["score"] == pytest.approx(line["probability"], abs=1e-4)


def test_export_writes_the_tokenizer_too(call, text_run, tmp_path):
    target = tmp_path / "half"
    result = call(
        export, f"--model={text_run / 'export'}", f"--to={target}", "--dtype=bfloat16"
    )
    assert result.status == 0, result.err
    assert jft.load(target).processor("a film") == jft.load(
        text_run / "export"
    ).processor("a film")


# --- what is refused ------------------------------------------------------------------
CONFIGS = {
    "unknown task": (["data.task=text"], ["'text'", "'text_classification'"]),
    "augmented texts": (["data.augment=small_affine"], ["small_affine", "None"]),
    "texts as images": (
        ["data.task=image_classification"],
        ["data.columns", "['text']", "['image', 'targets']"],
    ),
    "images as texts": (
        [
            "data.source=digits",
            "data.path=None",
            "data.source_options={}",
            "data.split_paths={}",
            "data.split_sizes={'train': 'rest', 'validation': 9, 'test': 9}",
        ],
        ["'text'", "'0'", "['image', 'targets']"],
    ),
    "sizes and paths of the same splits": (
        ["data.split_sizes={'train': 'rest', 'validation': 0.1}"],
        ["['validation']", "both a path and a size"],
    ),
    "split without file or size": (
        ["data.split_paths={'train': 'train.tsv', 'test': 'test.tsv'}"],
        ["['test', 'train']", "['test', 'train', 'validation']"],
    ),
    "absent data": (["data.path=/no/sst2"], ["/no/sst2/train.tsv cannot be read"]),
    "longer than the model takes": (["data.max_length=65"], ["65", "at most 64"]),
    "tokens": (["data.max_length=0"], ["data.max_length", "at least 1"]),
    "from scratch": (
        ["model.pretrained=None"],
        ["model.tokenizer", "folder", '"train"'],
    ),
    "model without the head": (
        ["model.pretrained=jft:letters_vit"],
        ["'sequence_classification'", "['image_classification']"],
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_config_is_refused(name, call, tiny_bert, reviews, tmp_path):
    overrides, words = CONFIGS[name]
    argv = [f"--config.{override}" for override in overrides]
    flags = config_flags(tiny_bert, reviews)
    result = call(finetune, *flags, f"--workdir={tmp_path / 'run'}", *argv)
    assert_refused(result, *words)
    assert_untrained(tmp_path / "run")


def test_a_fault_of_the_data_names_file_and_line(call, tiny_bert, reviews, tmp_path):
    shutil.copytree(reviews, tmp_path / "broken")
    with (tmp_path / "broken" / "dev.tsv").open("a") as file:
        file.write("a film\tgood\n")
    flags = config_flags(tiny_bert, tmp_path / "broken")
    result = call(finetune, *flags, f"--workdir={tmp_path / 'run'}")
    assert_refused(result, "dev.tsv, line 25, column '1'", "'good'", "'negative'")


def test_a_model_without_its_tokenizer(call, tiny_bert, reviews, tmp_path):
    shutil.copytree(tiny_bert, tmp_path / "bert")
    for file in (tmp_path / "bert").glob("tokenizer*"):
        file.unlink()
    flags = config_flags(tmp_path / "bert", reviews)
    result = call(finetune, *flags, f"--workdir={tmp_path / 'run'}")
    assert_refused(result, "no tokenizer", "tokenizer.json")
    assert_untrained(tmp_path / "run")


PREDICT = {
    "nothing": ([], ["--images", "--texts", "--inputs"]),
    "a blank line": (["--inputs={tmp}/blank.txt"], ["''", "--inputs"]),
    "an absent file": (["--inputs={tmp}/no.txt"], ["no.txt", "UTF-8"]),
    "no pair": (["--pairs", "--texts=a"], ["'a'", "two texts with a tab"]),
    "images": (["--texts=a", "--images={tmp}/0.png"], ["texts alone", "1 images"]),
    "too long": (["--texts=a", "--max_length=99"], ["99", "at most 64"]),
}


@pytest.mark.parametrize("name", PREDICT)
def test_predict_refuses(name, call, text_run, tmp_path):
    argv, words = PREDICT[name]
    (tmp_path / "blank.txt").write_text("a\n\nb\n")
    (tmp_path / "0.png").touch()
    filled = [word.format(tmp=tmp_path) for word in argv]
    assert_refused(call(predict, f"--model={text_run / 'export'}", *filled), *words)


def test_models_of_other_tasks_are_refused(call, text_run, tiny, tiny_run):
    result = call(evaluate, f"--model={text_run / 'export'}", tiny)
    assert_refused(result, "'sequence_classification'", "'image_classification'")
    result = call(predict, f"--model={tiny_run / 'export'}", "--texts=a")
    assert_refused(result, "images alone", "1 texts")
