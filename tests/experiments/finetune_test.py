# SPDX-License-Identifier: Apache-2.0
"""The scripts end to end: what a run leaves, and that each kind of run ends."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

import jft
from experiments import evaluate, export, finetune, predict, pretrain
from jft import data

ROOT = Path(__file__).parents[2]


def read_summary(workdir):
    return json.loads((workdir / "summary.json").read_text())


def read_records(workdir, split=None):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [r for r in records if split in (None, r["split"])]


def read_table(out):
    """The rows of a printed table of two columns."""
    return dict(line.split(maxsplit=1) for line in out.splitlines()[2:])


def images_of(processor_config, examples, num_classes):
    """Pixel values as jft makes them."""
    fields = data.make_image_fields(processor_config, num_classes=num_classes)
    return np.stack([fields(example)["pixel_values"] for example in examples])


@pytest.fixture(scope="session")
def examples():
    source = data.load_source("digits")
    return [source[i] | {"index": i} for i in range(0, 100, 10)]


# --- the run that every newcomer makes ------------------------------------------------
def test_a_run_leaves_what_the_readme_says(quicktest):
    names = {path.name for path in quicktest.workdir.iterdir()}
    assert names == {
        ".lock",
        "checkpoints",
        "config.json",
        "export",
        "metrics.jsonl",
        "plots",
        "summary.json",
        "tensorboard",
    }
    assert {path.name for path in (quicktest.workdir / "plots").iterdir()} == {
        "confusion.png",
        "curves.png",
        "forgetting.png",
        "learning_rates.png",
    }
    for file in (quicktest.workdir / "plots").iterdir():
        with Image.open(file) as image:
            assert min(image.size) > 200
    assert {path.name for path in (quicktest.workdir / "export").iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    assert len(list((quicktest.workdir / "tensorboard").iterdir())) == 1
    steps = {path.name for path in (quicktest.workdir / "checkpoints").iterdir()}
    assert steps == {"00000006", "00000012"}


def test_the_summary_has_the_figures_of_the_run(quicktest):
    summary = quicktest.summary
    assert summary["steps"] == 12
    assert summary["examples_seen"] == 12 * 12 * jax.device_count()
    assert summary["seed"] == 0
    (warning,) = summary["warnings"]  # of a small model at a high rate
    assert warning.startswith("drift: ")
    assert f"warning: {warning}" in quicktest.out
    assert summary["params"]["total"] == summary["params"]["trainable"] > 150_000
    assert set(summary["seconds"]) == {
        "total",
        "compile",
        "train",
        "evaluate",
        "data_wait",
    }
    assert all(value >= 0 for value in summary["seconds"].values())
    assert {"python", "jax", "jft", "optax"} <= set(summary["versions"])

    spans = [(phase["start"], phase["stop"]) for phase in summary["phases"]]
    assert spans == [(start, start + 2) for start in range(0, 12, 2)]
    for name in ("trainable_params", "step_flops"):
        values = [phase[name] for phase in summary["phases"]]
        assert values == sorted(set(values)), name
    assert all(phase["seconds"] > 0 for phase in summary["phases"])

    assert summary["test"]["examples"] == 1497
    validation = [r for r in quicktest.records if r["split"] == "validation"]
    best = max(validation, key=lambda record: record["accuracy"])
    assert summary["best"] == best
    source = [r for r in quicktest.records if r["split"] == "source"]
    assert summary["forgetting"]["before"] == source[0]["accuracy"] > 0.5
    at_best = next(r for r in source if r["step"] == best["step"])
    assert summary["forgetting"]["after"] == pytest.approx(at_best["accuracy"])


def test_what_will_train_is_printed_first_and_the_result_last(quicktest):
    before, table, after = (
        quicktest.out.index("layer  parameters under"),
        quicktest.out.index("from step 10"),
        quicktest.out.index("test accuracy"),
    )
    assert before < table < after
    for name in ("export", "checkpoints", "plots", "summary.json"):
        assert str(quicktest.workdir / name) in quicktest.out[after:]


def test_records_follow_the_config(quicktest):
    steps = {
        split: [r["step"] for r in quicktest.records if r["split"] == split]
        for split in ("train", "validation", "source")
    }
    assert steps == {
        "train": list(range(2, 13, 2)),
        "validation": [6, 12],
        "source": [0, 6, 12],
    }


# --- the other scripts ----------------------------------------------------------------
def test_evaluate_gives_a_run_and_its_export_the_same_scores(call, tiny, tiny_run):
    expected = read_summary(tiny_run)["test"]
    run = call(evaluate, f"--workdir={tiny_run}")
    folder = call(evaluate, f"--model={tiny_run / 'export'}", tiny)
    assert (run.status, folder.status) == (0, 0)
    assert run.out == folder.out
    table = read_table(run.out)
    assert set(table) == set(expected)
    for name, value in expected.items():
        assert float(table[name].replace(",", "")) == pytest.approx(value, rel=1e-3)


def test_predict_classifies_files_as_the_run_does(call, quicktest, examples, tmp_path):
    for i, example in enumerate(examples):
        Image.fromarray(example["image"][..., 0]).save(tmp_path / f"{i:02d}.png")
    output = tmp_path / "out.jsonl"
    folder = quicktest.workdir / "export"
    flags = [f"--model={folder}", f"--images={tmp_path}", "--batch_size=4"]
    assert call(predict, *flags, f"--output={output}").status == 0
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [Path(line["file"]).name for line in lines] == [
        f"{i:02d}.png" for i in range(len(examples))
    ]
    model = jft.load(folder)
    pixels = images_of(model.processor, examples, 10)
    logits = model.apply_fn(model.params, {"pixel_values": pixels}, key=None)
    expected = [model.class_names[i] for i in np.argmax(logits, -1)]
    assert [line["class"] for line in lines] == expected
    printed = call(predict, f"--model={folder}", f"--images={tmp_path / '00.png'}")
    shown = json.loads(printed.out)
    assert (shown["file"], shown["class"]) == (lines[0]["file"], lines[0]["class"])


def test_export_writes_a_run_anew_in_small_files(call, tiny_run, tmp_path):
    flags = [f"--workdir={tiny_run}", "--max_shard_size=5KB"]
    result = call(export, *flags, f"--to={tmp_path / 'small'}")
    assert result.status == 0, result.err
    assert len(list((tmp_path / "small").glob("model-*.safetensors"))) > 1
    again, first = jft.load(tmp_path / "small"), jft.load(tiny_run / "export")
    assert again.config["id2label"] == first.config["id2label"]
    jax.tree.map(np.testing.assert_array_equal, again.params, first.params)
    half = call(
        export, f"--workdir={tiny_run}", f"--to={tmp_path / 'half'}", "--dtype=bfloat16"
    )
    assert half.status == 0, half.err
    assert jft.load(tmp_path / "half").config["dtype"] == "bfloat16"


# --- every config ---------------------------------------------------------------------
# the recipe is the run above, and letters start from scratch
@pytest.mark.parametrize(
    "config", ["digits.py:quicktest,recipe=head", "letters.py:quicktest"]
)
def test_every_config_of_small_images_has_a_quicktest_that_ends(config, call, tmp_path):
    script = pretrain if config.startswith("letters") else finetune
    result = call(
        script,
        f"--config={ROOT / 'configs' / config}",
        f"--workdir={tmp_path / 'run'}",
        f"--config.data.global_batch_size={12 * jax.device_count()}",
        "--config.train.num_steps=4",
        "--config.evals.eval_every_steps=4",
    )
    assert result.status == 0, result.err
    summary = read_summary(tmp_path / "run")
    assert summary["steps"] == 4
    assert np.isfinite(summary["test"]["loss"])
    if config.endswith("recipe=head"):
        assert summary["params"]["trainable"] == 650


# --- each kind of run -----------------------------------------------------------------
def run_tiny(call, tiny, workdir, *overrides):
    argv = [f"--config.{override}" for override in overrides]
    result = call(finetune, tiny, f"--workdir={workdir}", *argv)
    assert result.status == 0, result.err
    return read_summary(workdir), read_records(workdir)


EXPLICIT = "optim.unfreeze.open_at=[[2,0],[1,2],[0,2]]"
UNFREEZE = {
    # three layers: embeddings 0, block 1, head 2
    "chain_thaw": ([], [[2], [0], [1], [0, 1, 2]]),
    "explicit": ([EXPLICIT], [[2], [0, 1, 2]]),
    "plateau": (
        # nothing is ever better by 1, so each evaluation opens one more
        [
            "optim.unfreeze.patience=1",
            "optim.unfreeze.min_delta=1",
            "evals.eval_every_steps=1",
        ],
        [[2], [1, 2], [0, 1, 2]],
    ),
}


@pytest.fixture(scope="session")
def unfreeze_run(call, tiny, base, tmp_path_factory):
    """A function that makes a run with one method of unfreezing, each once."""

    @functools.cache
    def make(method):
        workdir = tmp_path_factory.mktemp(method)
        start = base.removeprefix("--config.")
        chosen = f"optim.unfreeze.method={method}"
        return run_tiny(call, tiny, workdir, start, chosen, *UNFREEZE[method][0])

    return make


@pytest.mark.parametrize("method", UNFREEZE)
def test_unfreezing_opens_phases(method, unfreeze_run):
    summary, _ = unfreeze_run(method)
    block = 4 * (16 * 16 + 16) + 2 * 16 * 32 + 32 + 16 + 4 * 16
    size = {0: 16 * 16 + 16 + 16 + 5 * 16, 1: block + 2 * 16, 2: 16 * 10 + 10}
    expected = [sum(size[layer] for layer in open_) for open_ in UNFREEZE[method][1]]
    assert [phase["trainable_params"] for phase in summary["phases"]] == expected
    assert sum(size.values()) == summary["params"]["total"]


def assert_same_run(run, expected, *, tolerance):
    losses = [[record["loss"] for record in records] for _, records in (run, expected)]
    np.testing.assert_allclose(*losses, rtol=tolerance)
    scores = [summary["test"]["loss"] for summary, _ in (run, expected)]
    np.testing.assert_allclose(*scores, rtol=tolerance)


SAME = {
    "spread": (["train.mesh.fsdp=2", "train.grad_accum_steps=2"], 1e-5),
    "bfloat16": (["train.compute_dtype=bfloat16"], 2e-2),
}


@pytest.mark.parametrize("name", SAME)
def test_how_it_is_computed_does_not_change_what(name, call, tiny, tmp_path, tiny_run):
    overrides, tolerance = SAME[name]
    run = run_tiny(call, tiny, tmp_path, *overrides)
    expected = read_summary(tiny_run), read_records(tiny_run)
    assert_same_run(run, expected, tolerance=tolerance)


def test_what_is_frozen_is_exported_as_it_was(call, tiny, base, tmp_path):
    """Though the step holds it in the dtype it computes in."""
    rules = "partition.rules=[['classifier/.*','head'],['.*','frozen']]"
    flag = base.removeprefix("--config.")
    half = "train.compute_dtype=bfloat16"
    run_tiny(call, tiny, tmp_path / "run", flag, rules, half)
    before, after = (
        load_file(Path(folder) / "model.safetensors")
        for folder in (base.partition("=")[2], tmp_path / "run" / "export")
    )
    for key, array in after.items():
        assert array.dtype == np.float32
        if "classifier" not in key:
            np.testing.assert_array_equal(array, before[key])


def test_an_average_of_the_weights_is_what_is_judged_and_exported(
    call, tiny, base, tmp_path
):
    flag = base.removeprefix("--config.")
    still = ["optim.ema_decay=0.999999", "optim.layer_decay=0.75"]
    summary, records = run_tiny(call, tiny, tmp_path, flag, *still)
    validation = [r["loss"] for r in records if r["split"] == "validation"]
    # an average that hardly moves is judged alike at every step
    assert validation[0] == pytest.approx(validation[1], abs=1e-4)
    result = call(evaluate, f"--model={tmp_path / 'export'}", tiny)
    shown = float(read_table(result.out)["loss"])
    assert shown == pytest.approx(summary["test"]["loss"], rel=1e-3)


# --- transformers reads it ------------------------------------------------------------
@pytest.fixture(params=["exported", "shipped"])
def folder(request):
    if request.param == "shipped":
        return Path(jft.__file__).parent / "shipped" / "letters_vit"
    return request.getfixturevalue("quicktest").workdir / "export"


def test_transformers_reads_the_config_and_the_processor(folder, examples):
    from transformers import AutoConfig, AutoImageProcessor

    config = AutoConfig.from_pretrained(folder)
    model = jft.load(folder)
    assert config.architectures == ["ViTForImageClassification"]
    start = jft.load("jft:letters_vit")  # the export's images are made as its base's
    assert model.processor == start.processor
    names = tuple(config.id2label[i] for i in range(config.num_labels))
    assert names == model.class_names
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    images = [example["image"] for example in examples]
    made = processor(images, return_tensors="np", input_data_format="channels_last")[
        "pixel_values"
    ]
    ours = images_of(model.processor, examples, config.num_labels)
    np.testing.assert_allclose(made.transpose(0, 2, 3, 1), ours, atol=1e-6)


def test_transformers_gives_our_logits(folder, examples):
    torch = pytest.importorskip("torch", reason="torch is in the parity extra")
    from transformers import ViTForImageClassification

    theirs, report = ViTForImageClassification.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(report.values()), report
    model = jft.load(folder)
    pixels = images_of(model.processor, examples, len(model.class_names))
    with torch.no_grad():
        inputs = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())
        expected = theirs.eval()(pixel_values=inputs).logits.numpy()
    logits = model.apply_fn(model.params, {"pixel_values": jnp.array(pixels)}, key=None)
    assert expected.std() > 0.3
    np.testing.assert_allclose(logits, expected, atol=1e-4)
