# SPDX-License-Identifier: Apache-2.0
"""Every fault of the user stops before training: one sentence, status 2, no loss."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import evaluate, export, finetune, predict, pretrain

ROOT = Path(__file__).parents[2]


def assert_refused(result, *words):
    """Status 2 and one line on stderr that holds the words."""
    assert result.status == 2, result
    assert result.err.startswith("error: "), result.err
    assert result.err.count("\n") == 1, result.err
    assert "Traceback" not in result.err
    assert len(result.err) < 900, result.err
    missing = [word for word in words if word not in result.err]
    assert not missing, (missing, result.err)


def assert_untrained(workdir):
    """Nothing was trained or saved."""
    metrics = workdir / "metrics.jsonl"
    if metrics.exists():
        records = map(json.loads, metrics.read_text().splitlines())
        assert not [record for record in records if record["split"] == "train"]
    assert not (workdir / "checkpoints").exists()
    assert not (workdir / "summary.json").exists()


def content(folder):
    """The digest of every file below a folder."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


# overrides -> words that say what was given and what was expected
CONFIGS = {
    "unknown key": (["optim.lerning_rate=1"], ["optim.lerning_rate", "learning_rate"]),
    "unknown section": (["optimizer.name=sgd"], ["optimizer", "optim"]),
    "wrong type": (["seed=five"], ["seed", "'five' (str)", "a whole number"]),
    "whole number": (["data.global_batch_size=8.5"], ["8.5", "a whole number"]),
    "out of range": (["optim.learning_rate=-1"], ["-1", "a number above 0"]),
    "unknown choice": (
        ["train.phases=eager"],
        ["'eager'", "'compiled', 'gated'"],
    ),
    "override without value": (["seed="], ["--config.seed=", "section.key=value"]),
    "override without key": (["=3"], ["--config.=3", "section.key=value"]),
    "override in a value": (["seed.x=3"], ["--config.seed.x", "seed is 0"]),
    "unclosed list": (["partition.rules=[['a'"], ["partition.rules", "[['a'", "list"]),
    "two durations": (
        ["train.num_steps=3", "train.num_epochs=1"],
        ["num_steps=3", "num_epochs=1"],
    ),
    "rule without match": (
        ["partition.rules=[['clasifier/.*','head'],['.*','frozen']]"],
        ["clasifier/.*", "classifier"],
    ),
    "rule that is no regex": (["partition.rules=[['(','a']]"], ["'('"]),
    "path without rule": (
        ["partition.rules=[['classifier/.*','head']]"],
        ["vit/embeddings/cls_token", "17 more", "cover the rest"],
    ),
    "all frozen": (["partition.rules=[['.*','frozen']]"], ["freeze all", "frozen"]),
    "new head frozen": (
        ["partition.rules=[['classifier/.*','frozen'],['.*','body']]"],
        ["classifier/kernel", "frozen", "head"],
    ),
    "opening after the end": (
        ["optim.unfreeze.method=top_down", "optim.unfreeze.every_steps=3"],
        ["{0: 6}", "after step 4"],
    ),
    "explicit opening after the end": (
        [
            "optim.unfreeze.method=explicit",
            "optim.unfreeze.open_at=[[2,0],[1,9],[0,9]]",
        ],
        ["1: 9", "after step 4"],
    ),
    "explicit opening of no layer": (
        [
            "optim.unfreeze.method=explicit",
            "optim.unfreeze.open_at=[[2,0],[1,1],[0,1],[7,1]]",
        ],
        ["[0, 1, 2, 7]", "[0, 1, 2]"],
    ),
    "explicit opening given twice": (
        [
            "optim.unfreeze.method=explicit",
            "optim.unfreeze.open_at=[[2,0],[1,1],[0,1],[1,3]]",
        ],
        ["[0, 1, 1, 2]", "[0, 1, 2]"],
    ),
    "explicit opening lacks a layer": (
        ["optim.unfreeze.method=explicit", "optim.unfreeze.open_at=[[2,0],[1,1]]"],
        ["[1, 2]", "[0, 1, 2]"],
    ),
    "explicit opening before the start": (
        [
            "optim.unfreeze.method=explicit",
            "optim.unfreeze.open_at=[[2,0],[1,-1],[0,1]]",
        ],
        ["-1", "at least 0"],
    ),
    "nothing open at first": (
        ["optim.unfreeze.method=top_down", "optim.unfreeze.start_steps=1"],
        ["(0, 1)", "step 0"],
    ),
    "plateau without phases": (
        ["optim.unfreeze.method=plateau", "train.phases=gated"],
        ["plateau", "gated", "compiled"],
    ),
    "gates that cannot tell what is frozen": (
        ["optim.unfreeze.method=top_down", "train.phases=gated"],
        ["gated", "train.frozen_dropout", "compiled"],
    ),
    "a cache of what changes": (
        ["train.cache.use=on"],
        ["train.cache.use", "cannot be kept"],
    ),
    "run of no steps": (["train.num_steps=0"], ["train.num is 0 steps", "1 or more"]),
    "warmup longer than the run": (["optim.warmup_steps=9"], ["9", "4"]),
    "batch over devices": (["data.global_batch_size=6"], ["6", "4 devices", "8"]),
    "batch over microbatches": (
        ["train.grad_accum_steps=3"],
        ["8", "3 microbatches", "12"],
    ),
    "mesh": (["train.mesh.fsdp=3"], ["fsdp=3", "4 devices"]),
    "empty split": (
        ["data.split_sizes={'train': 150, 'validation': 0.0001, 'test': 'rest'}"],
        ["split"],
    ),
    "split of size 0": (
        ["data.split_sizes={'train': 4, 'validation': 0, 'test': 2}"],
        ["'validation'", "0", "above 0"],
    ),
    "splits above the data": (
        ["data.split_sizes={'train': 400, 'validation': 2, 'test': 2}"],
        ["404", "class '0'", "178"],
    ),
    "split names": (
        ["data.split_sizes={'train': 4, 'dev': 2}"],
        ["['dev', 'train']", "['test', 'train', 'validation']"],
    ),
    "source": (["data.source=digit"], ["'digit'", "'digits', 'folder', 'hf_datasets'"]),
    "source option": (["data.source_options={'size': 3}"], ["'size'", "digits"]),
    "source path": (["data.path=/data"], ["'digits'", "'/data'", "None"]),
    "absent folder": (
        ["data.source=folder", "data.path=/no/such/folder"],
        ["/no/such/folder"],
    ),
    "folder without a path": (["data.source=folder"], ["folder", "path"]),
    "augmentation": (["data.augment=flip"], ["'flip'", "'small_affine'"]),
    "augmentation of the source": (
        ["source.name=letters", "source.augment=flip"],
        ["'flip'", "'small_affine'"],
    ),
    "optimizer": (["optim.optimizer=adamm"], ["'adamm'", "'adamw'"]),
    "hyperparameter": (["optim.hyperparams={'b3': 0.9}"], ["b3", "b2"]),
    "schedule": (["optim.schedule=cosin"], ["'cosin'", "'cosine'"]),
    "schedule option": (["optim.schedule_options={'cut': 1}"], ["cut", "cosine"]),
    "schedule option that the run sets": (
        ["optim.schedule_options={'warmup_steps': 1}"],
        ["optim.schedule_options", "warmup_steps", "optim.warmup_percent"],
    ),
    "hyperparameter that is a word": (
        ["optim.hyperparams={'b1': 'high'}"],
        ["b1", "'high'", "a number"],
    ),
    "layer decay preset": (["optim.layer_decay_preset=tim"], ["'tim'", "'timm'"]),
    "multiplier": (["optim.multipliers={'body': 2}"], ["body", "backbone"]),
    "metric": (["evals.metrics=['acuracy']"], ["acuracy", "accuracy"]),
    "metric that is not measured": (
        ["evals.metric=macro_f2"],
        ["evals.metric", "'macro_f2'", "['accuracy', 'loss', 'macro_f1']"],
    ),
    "replay of nothing": (
        ["train.replay.share=0.5"],
        ["train.replay.share", "source.name is None"],
    ),
    "replay of everything": (["train.replay.share=1.0"], ["share", "below 1"]),
    "replay of less than nothing": (["train.replay.share=-0.1"], ["share", "-0.1"]),
    "replay that drives away": (["train.replay.weight=-1"], ["replay.weight", "-1"]),
    "replay of what is measured on": (
        ["train.replay.share=0.5", "source.name=letters"],
        ["train.replay.share", "'train'", "source.split_sizes"],
    ),
    "replay in parts": (
        [
            "train.replay.share=0.5",
            "source.name=letters",
            "source.split_sizes={'train': 0.5, 'test': 0.5}",
            "train.grad_accum_steps=2",
        ],
        ["train.replay.share", "train.grad_accum_steps 2"],
    ),
    "old answers of a model from scratch": (
        ["train.lwf.weight=1", "model.pretrained=None"],
        ["train.lwf.weight", "model.pretrained is None"],
    ),
    "old answers through new blocks": (
        ["train.lwf.weight=1", "model.reinit_layers=1"],
        ["train.lwf.weight", "model.reinit_layers is 1"],
    ),
    "old answers below zero": (["train.lwf.weight=-1"], ["lwf.weight", "-1"]),
    "a probe without a second part": (
        [
            "optim.unfreeze.method=lp_ft",
            "optim.unfreeze.probe_steps=2",
            "optim.warmup_steps=0",
            "partition.rules=[['classifier/.*','head'],['.*','frozen']]",
        ],
        ["lp_ft", "layer 2", "nothing to open"],
    ),
    "source task of a model from scratch": (
        ["source.name=letters", "model.pretrained=None"],
        ["source.name", "'letters'", "model.pretrained is None"],
    ),
    "source metric": (
        ["source.name=letters", "source.metric=perplexity"],
        ["source.metric", "'perplexity'", "'accuracy'", "'loss'"],
    ),
    "source without a part to measure on": (
        ["source.name=letters", "source.split_sizes={'train': 'rest'}"],
        ["source.split_sizes", "['train']", "'test'"],
    ),
    "source columns": (
        ["source.name=letters", "source.columns={'picture': 'image'}"],
        ["source.columns", "['picture']"],
    ),
    "source task of another head": (
        ["source.name=letters", "source.task=text_regression"],
        ["'text_regression'", "'image_classification'", "source.task"],
    ),
    "source classes": (
        ["source.name=letters", "source.options={'num_per_class': 1}"],
        ["'a', 'b', 'c'"],
    ),
    "source class names": (
        ["source.name=letters", "source.class_names=('x', 'y')"],
        ["source.class_names", "2 names", "['a', 'b', 'c']"],
    ),
    "model folder": (["model.pretrained=/no/vit"], ["/no/vit", "folder"]),
    "shipped model": (["model.pretrained=jft:letter"], ["jft:letter", "letters_vit"]),
    "model type": (["model.model_type=vitt", "model.pretrained=None"], ["vitt", "vit"]),
    "model field": (
        ["model.model_config={'hidden': 3}", "model.pretrained=None"],
        ["['hidden']", "'hidden_size'"],
    ),
    "model field type": (
        ["model.model_config={'hidden_size': 'big'}", "model.pretrained=None"],
        ["hidden_size", "big"],
    ),
    "shard size": (["export.max_shard_size=lots"], ["lots", "5GB"]),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_config_is_refused(name, call, tiny, base, tmp_path):
    overrides, words = CONFIGS[name]
    argv = [f"--config.{override}" for override in overrides]
    result = call(finetune, tiny, base, f"--workdir={tmp_path / 'run'}", *argv)
    assert_refused(result, *words)
    assert_untrained(tmp_path / "run")


# command line -> words
COMMANDS = {
    "no config": ([], ["--config", "configs/digits.py"]),
    "absent config": (["--config=no.py"], ["no.py", ".py file that exists"]),
    "config argument": (
        [f"--config={ROOT}/configs/digits.py:recipe=best"],
        ["'best'", "recipe, full, head, scratch"],
    ),
    "unknown argument": (
        [f"--config={ROOT}/configs/digits.py:quick"],
        ["'quick'", "quicktest"],
    ),
    "unknown flag": (["{tiny}", "--workdirs=x"], ["workdirs", "--help"]),
    "word that is no flag": (["{tiny}", "train"], ["'train'", "--workdir"]),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_command_line_is_refused(name, call, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv, words = COMMANDS[name]
    result = call(finetune, *[word.format(tiny=tiny) for word in argv])
    assert_refused(result, *words)
    assert not list(tmp_path.iterdir())


def test_pretraining_refuses_a_checkpoint_to_start_from(call, tiny, base, tmp_path):
    result = call(pretrain, tiny, base, f"--workdir={tmp_path / 'run'}")
    assert_refused(result, "model.pretrained", "None", "experiments.finetune")
    assert_untrained(tmp_path / "run")


@pytest.fixture
def image_folder(tmp_path):
    """Two classes of ten 8x8 images."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(10):
            image = Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8))
            image.save(tmp_path / "images" / name / f"{i}.png")
    return tmp_path / "images"


def folder_flags(image_folder):
    return ["--config.data.source=folder", f"--config.data.path={image_folder}"]


def test_label_outside_the_classes(call, tiny, base, tmp_path, image_folder):
    (image_folder / "cow").mkdir()
    for i in range(8):  # as many as are drawn of each class
        shutil.copy(image_folder / "cat" / "0.png", image_folder / "cow" / f"{i}.png")
    flags = [*folder_flags(image_folder), "--config.data.class_names=['cat','dog']"]
    result = call(finetune, tiny, base, f"--workdir={tmp_path / 'run'}", *flags)
    assert_refused(result, "cow/0.png, column 'targets'", "['cat', 'dog']")
    assert_untrained(tmp_path / "run")


def test_class_without_an_image(call, tiny, base, tmp_path, image_folder):
    (image_folder / "cow").mkdir()
    flags = folder_flags(image_folder)
    result = call(finetune, tiny, base, f"--workdir={tmp_path / 'run'}", *flags)
    assert_refused(result, "cow")
    assert_untrained(tmp_path / "run")


def test_evaluation_on_another_split_or_other_classes(call, tiny_run, tiny):
    result = call(evaluate, f"--model={tiny_run / 'export'}", tiny, "--split=dev")
    assert_refused(result, "'dev'", "['test', 'train', 'validation']")
    letters = f"--config={ROOT}/configs/letters.py:quicktest"
    result = call(evaluate, f"--model={tiny_run / 'export'}", letters)
    assert_refused(result, "'A'", "'0'", "its own task")


# --- workdirs -------------------------------------------------------------------------
def test_workdir_of_another_config(call, tiny, tiny_run):
    before = content(tiny_run)
    result = call(finetune, tiny, f"--workdir={tiny_run}", "--config.seed=1")
    assert_refused(result, "another config", "seed: 0 there, 1 here", "--workdir")
    assert content(tiny_run) == before


@pytest.fixture
def interrupted(tmp_path, tiny, make_base, call, monkeypatch):
    """The command line of a run that stopped at step 2, its workdir and its base."""
    workdir, base = tmp_path / "run", tmp_path / "base"
    shutil.copytree(make_base(0), base)
    argv = [tiny, f"--workdir={workdir}", f"--config.model.pretrained={base}"]
    asked = iter([False, False])
    with monkeypatch.context() as patch:
        stop = property(lambda self: next(asked, True))
        patch.setattr("jft.checkpoint.StopSignal.requested", stop)
        result = call(finetune, *argv, "--config.evals.eval_every_steps=4")
    assert result.status == 75, result
    assert "saved step 2 of 4" in result.err
    return [*argv, "--config.evals.eval_every_steps=4"], workdir, base


def test_workdir_of_another_base(call, interrupted, make_base):
    argv, workdir, base = interrupted
    before = content(workdir)
    shutil.rmtree(base)
    shutil.copytree(make_base(1), base)  # same place, other numbers
    assert_refused(call(finetune, *argv), "base", "Use the settings and base")
    assert before.items() <= content(workdir).items()


def test_corrupt_checkpoint(call, interrupted):
    argv, workdir, _ = interrupted
    checkpoint = workdir / "checkpoints" / "00000002"
    file = max(checkpoint.rglob("*"), key=lambda file: file.stat().st_size)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    before = content(workdir)
    name = str(file.relative_to(checkpoint))
    assert_refused(call(finetune, *argv), str(checkpoint), f"changed ['{name}']")
    assert before.items() <= content(workdir).items()
    result = call(evaluate, f"--workdir={workdir}")
    assert_refused(result, str(checkpoint), f"changed ['{name}']")


def test_a_config_that_was_refused_does_not_claim_its_workdir(
    call, tiny, base, tmp_path
):
    argv = [tiny, base, f"--workdir={tmp_path / 'run'}"]
    wrong = "--config.optim.schedule=cosin"
    assert_refused(call(finetune, *argv, wrong), "unknown schedule 'cosin'")
    again = "--config.optim.schedule=cosinus"
    assert_refused(call(finetune, *argv, again), "unknown schedule 'cosinus'")


@pytest.mark.parametrize("parent", ["file", "/proc"])
def test_unwritable_workdir(parent, call, tiny, tmp_path):
    (tmp_path / "file").touch()
    result = call(finetune, tiny, f"--workdir={tmp_path / parent}/run")
    assert_refused(result, f"{parent}/run", "cannot be written", "--workdir")


def test_workdir_of_something_else(call, tiny, tmp_path):
    (tmp_path / "thesis.tex").touch()
    result = call(finetune, tiny, f"--workdir={tmp_path}")
    assert_refused(result, "thesis.tex", "an empty or a new folder")


# --- the other scripts ----------------------------------------------------------------
OTHERS = {
    "neither": (evaluate, [], ["--workdir", "--model"]),
    "both": (evaluate, ["--workdir=a", "--model=b"], ["exactly one", "--workdir=a"]),
    "no workdir": (evaluate, ["--workdir=/no/run"], ["/no/run", "no workdir of jft"]),
    "no folder": (predict, ["--model=/no/vit", "--images={png}"], ["/no/vit"]),
    "no data": (evaluate, ["--model={run}/export"], ["--config=file.py"]),
    "no images": (predict, ["--model={run}/export"], ["--images"]),
    "absent image": (
        predict,
        ["--model={run}/export", "--images=no.png"],
        ["no.png", "--images"],
    ),
    "no image": (
        predict,
        ["--model={run}/export", "--images={run}/config.json"],
        ["config.json"],
    ),
    "batch size": (
        predict,
        ["--model={run}/export", "--images={png}", "--batch_size=0"],
        ["batch_size=0", "positive integer"],
    ),
    "unwritable output": (
        predict,
        ["--model={run}/export", "--images={png}", "--output={png}/a.jsonl"],
        ["a.jsonl", "--output"],
    ),
    "no target": (export, ["--model={run}/export"], ["--to"]),
    "unwritable target": (
        export,
        ["--model={run}/export", "--to={png}/x"],
        ["cannot be written"],
    ),
    "shard size": (
        export,
        ["--model={run}/export", "--to={tmp}/x", "--max_shard_size=5"],
        ["'5'", '"5GB"'],
    ),
    "dtype": (
        export,
        ["--model={run}/export", "--to={tmp}/x", "--dtype=int8"],
        ["int8", "bfloat16"],
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_scripts_refuse(name, call, tiny_run, tmp_path):
    script, argv, words = OTHERS[name]
    png = tmp_path / "8.png"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(png)
    filled = [word.format(run=tiny_run, png=png, tmp=tmp_path) for word in argv]
    assert_refused(call(script, *filled), *words)
    assert not (tmp_path / "x").exists()


# --- as processes ---------------------------------------------------------------------
def run_process(*argv):
    return subprocess.run(
        [sys.executable, "-m", *argv],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "4"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_process_prints_one_sentence_and_debug_the_traceback(tiny, tmp_path):
    argv = ["experiments.finetune", tiny, f"--workdir={tmp_path / 'run'}"]
    wrong = "--config.optim.lerning_rate=1"
    plain = run_process(*argv, wrong)
    assert plain.returncode == 2
    assert plain.stderr.startswith("error: unknown config key optim.lerning_rate")
    assert plain.stderr.count("\n") == 1
    debug = run_process(*argv, wrong, "--debug")
    assert debug.returncode not in (0, 75)
    assert "Traceback" in debug.stderr
    assert "InputError: unknown config key optim.lerning_rate" in debug.stderr


def test_a_process_refuses_a_batch_that_does_not_divide(tiny, tmp_path):
    argv = ["experiments.finetune", tiny, f"--workdir={tmp_path / 'run'}"]
    result = run_process(*argv, "--config.data.global_batch_size=6")
    assert result.returncode == 2
    assert "global_batch_size 6 does not divide over 4 devices" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()
