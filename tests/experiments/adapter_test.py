# SPDX-License-Identifier: Apache-2.0
"""A run with an adapter: what it prints, resumes and leaves."""

import dataclasses
import json
import shutil
import sys

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

import jft
from configs import common
from experiments import build, evaluate, export, finetune, predict, run_config
from experiments.adapter import exported_as, make_adapter
from experiments.predict_adapters import choose_adapters, load_adapted
from jft.config import AdapterConfig, read_config, resolve
from jft.params import adapters, leaf_digest
from jft.params.adapters import ADAPTERS, BitFit, Lora, Targeted
from jft.paths import flatten
from jft.types import InputError
from tests.params.adapters import table


class Outside(Lora):
    """A method that no base could hold."""

    foldable = False


LORA = (
    "--config.adapter.method=lora",
    "--config.adapter.options={'rank': 2, 'rank_pattern': {'query': 1}}",
    "--config.adapter.options.dropout=0.1",
    "--config.optim.multipliers.lora_B=16",
)


@pytest.fixture(scope="module")
def adapter_run(call, tiny, base, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("adapter") / "run"
    result = call(finetune, tiny, base, *LORA, f"--workdir={workdir}")
    assert result.status == 0, result.err
    return workdir, result.out


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_method_has_its_own_defaults(name):
    method = ADAPTERS[name]
    targets = {"targets": ("all-linear",)} if issubclass(method, Targeted) else {}
    assert make_adapter(AdapterConfig(method=name)) == method(**targets)


def test_options_are_as_the_method_has_them():
    options = {
        "alpha": 3,
        "rank_pattern": (("query", 4), ("key", 2)),
        "alpha_pattern": {"value": 5},
    }
    adapter = make_adapter(AdapterConfig(method="lora", options=options))
    assert adapter == Lora(
        alpha=3.0,
        rank_pattern=(("query", 4), ("key", 2)),
        alpha_pattern={"value": 5.0},
    )
    assert isinstance(adapter.alpha, float)
    assert isinstance(adapter.alpha_pattern["value"], float)


def test_table_says_what_moves(adapter_run):
    _, out = adapter_run
    rows = [line.split() for line in out.splitlines() if "adapters/vit" in line]
    assert [(row[0], row[2], row[6]) for row in rows] == [
        ("1", "adapter", "1"),
        ("1", "lora_B", "16"),
    ]
    assert any("frozen" in line and "never" in line for line in out.splitlines())


def test_base_stays_and_both_exports_say_the_same(adapter_run, base):
    workdir, _ = adapter_run
    folder = base.partition("=")[2]
    read = read_config(workdir)
    job = build.make_job(run_config.complete(read))
    folded = jft.load(workdir / "export")
    stored = load_file(workdir / "export" / "adapter" / "adapter_model.safetensors")
    assert len(stored) == 2 * 6 + 2  # two factors of each product, and the head
    frozen = jft.load(folder, class_names=folded.class_names, key=jax.random.key(7))
    adapted = jft.load_adapter(workdir / "export" / "adapter", frozen)
    batch = {"pixel_values": np.ones((2, 8, 8, 1), np.float32)}
    one = folded.apply_fn(folded.params, batch, key=None)
    other = adapted.apply_fn(adapted.params, batch, key=None)
    np.testing.assert_allclose(one, other, atol=1e-5)
    # all but products and head is still the base's, and the checkpoint has none of it
    before, after = (
        load_file(f"{x}/model.safetensors") for x in (folder, workdir / "export")
    )
    for key in before:
        if "norm" in key or "embeddings" in key:
            np.testing.assert_array_equal(before[key], after[key])
    assert job.model.adapter.rank == 2
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary["params"]["trainable"] == sum(x.size for x in stored.values())


def test_resumes_bit_for_bit(adapter_run, call, tiny, base, tmp_path):
    workdir, _ = adapter_run
    again = tmp_path / "run"
    shutil.copytree(workdir, again)
    (again / "summary.json").unlink()
    shutil.rmtree(again / "export")
    (last,) = (p for p in (again / "checkpoints").iterdir() if p.name.endswith("4"))
    shutil.rmtree(last)
    result = call(finetune, tiny, base, *LORA, f"--workdir={again}")
    assert result.status == 0, result.err
    assert "going on from step 2" in result.out
    name = "export/adapter/adapter_model.safetensors"
    one, other = load_file(workdir / name), load_file(again / name)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_scripts_read_the_run(adapter_run, call, tmp_path):
    workdir, _ = adapter_run
    assert call(evaluate, f"--workdir={workdir}").status == 0
    result = call(export, f"--workdir={workdir}", f"--to={tmp_path}")
    assert result.status == 0, result.err
    one = load_file(tmp_path / "model.safetensors")
    other = load_file(workdir / "export" / "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--config.adapter.method=lora"], "model.pretrained is None"),
        (["--config.adapter.method=lara"], "'lora'"),
        (
            [
                "BASE",
                "--config.adapter.method=lora",
                "--config.adapter.options.rank=99",
            ],
            "rank 99",
        ),
        (
            ["BASE", "--config.adapter.method=ia3", "--config.adapter.options.rank=4"],
            "adapter.options has ['rank'], which the adapter.method 'ia3' does not "
            "take; expected some of ['feedforward']",
        ),
        (
            ["--config.adapter.method=lora", "--config.adapter.options.bias=some"],
            "adapter.options.bias is 'some' (str); expected one of 'none', 'all'",
        ),
        (
            ["--config.adapter.method=lora", "--config.adapter.options.dropout=1"],
            "adapter.options.dropout is 1 (int); expected a number at least 0 and "
            "below 1",
        ),
        (
            ["--config.adapter.options.placement=pfeiffer"],
            "adapter.options is {'placement': 'pfeiffer'}, but adapter.method is None",
        ),
        (
            ["--config.adapter.method=bitfit", "--config.adapter.targets=['query']"],
            "adapter.targets is ('query',), but adapter.method is 'bitfit'",
        ),
        (
            ["--config.adapter.method=lora", "--config.adapter.init_method=pissa"],
            "unknown config key adapter.init_method. Did you mean "
            "adapter.options.init_method or adapter.method?",
        ),
        (
            [
                "BASE",
                "--config.adapter.method=bottleneck",
                "--config.adapter.options.reduction_factor=4",
                "--config.export.adapter=folded",
            ],
            "cannot be folded",
        ),
        (["BASE", "--config.adapter.method=ia3"], None),
        (["BASE", "--config.adapter.method=bitfit"], None),
    ],
)
def test_settings_that_do_and_do_not_fit(call, tiny, base, tmp_path, flags, said):
    flags = [base if flag == "BASE" else flag for flag in flags]
    short = "--config.train.num_steps=3"
    result = call(finetune, tiny, short, *flags, f"--workdir={tmp_path / 'run'}")
    assert result.status == (2 if said else 0), result.err
    assert said is None or said in result.err
    assert (tmp_path / "run" / "export" / "adapter").exists() == (said is None)


@pytest.fixture
def image(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "0.png")
    return tmp_path / "0.png"


def test_predict_asks_adapters_over_one_base(adapter_run, call, base, image, tmp_path):
    """As the folded model answers, and with classes of another head."""
    workdir, _ = adapter_run
    folded, adapter = workdir / "export", workdir / "export" / "adapter"
    folder = base.partition("=")[2]
    other = jft.load(folder, class_names=("x", "y"), key=jax.random.key(0))
    other = jft.adapt(other, Lora(rank=2), key=jax.random.key(1))
    jft.save_adapter(tmp_path / "other", other)
    asked = [f"--images={image}"]
    result = call(
        predict,
        f"--model={folder}",
        f"--adapter=mine={adapter}",
        f"--adapter={tmp_path / 'other'}",
        *asked,
    )
    assert result.status == 0, result.err
    mine, theirs = map(json.loads, result.out.splitlines())
    assert (mine["adapter"], theirs["adapter"]) == ("mine", "other")
    alone = json.loads(call(predict, f"--model={folded}", *asked).out)
    assert mine["class"] == alone["class"]
    assert mine["probabilities"] == pytest.approx(alone["probabilities"], abs=1e-4)
    assert set(theirs["probabilities"]) == {"x", "y"}
    assert theirs["file"] == mine["file"] == str(image)


def test_each_adapter_has_the_classes_of_its_own_head(base, tmp_path, monkeypatch):
    """Also one whose head another adapter before the last had."""
    folder, given = base.partition("=")[2], []
    heads = {"one": ("x", "y"), "two": ("no", "yes"), "three": ("x", "y")}
    for name, classes in heads.items():
        model = jft.load(folder, class_names=classes, key=jax.random.key(0))
        model = jft.adapt(model, Lora(rank=2), key=jax.random.key(1))
        jft.save_adapter(tmp_path / name, model)
        given.append(f"{name}={tmp_path / name}")
    hashed = []

    def describe_leaf(leaf):
        hashed.append(leaf.shape)
        return leaf_digest.describe_leaf(leaf)

    base_digest = sys.modules["jft.params.adapters.base_digest"]
    monkeypatch.setattr(base_digest, "describe_leaf", describe_leaf)
    models = load_adapted(folder, given).models
    assert {name: model.class_names for name, model in models.items()} == heads
    whole = flatten(jft.load(folder, key=jax.random.key(0)).params)
    head = adapters.head_paths(models["one"].family, models["one"].task, whole)
    assert len(hashed) == len(whole) - len(head)  # the base once, whatever the head


def test_an_adapter_of_another_base_is_told_among_several(base, tmp_path):
    folder = base.partition("=")[2]
    model = jft.load(folder, class_names=("x", "y"), key=jax.random.key(0))
    other = model._replace(params=jax.tree.map(lambda x: x * 1.02, model.params))
    for name, one in (("mine", model), ("other", other)):
        one = jft.adapt(one, Lora(rank=2), key=jax.random.key(1))
        jft.save_adapter(tmp_path / name, one)
    with pytest.raises(InputError, match="other is an adapter of another base"):
        load_adapted(folder, [str(tmp_path / x) for x in ("mine", "other")])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--model=BASE", "--adapter=a=ONE", "--adapter=a=ONE"], "'a' names another"),
        (["--model=BASE", "--adapter=a="], "--adapter=name=folder"),
        (["--model=BASE", "--adapter=BASE"], "is no adapter"),
        (["--workdir=RUN", "--adapter=ONE"], "without --model"),
    ],
)
def test_adapters_that_predict_refuses(adapter_run, call, base, image, flags, said):
    workdir, _ = adapter_run
    words = {
        "BASE": base.partition("=")[2],
        "ONE": str(workdir / "export" / "adapter"),
        "RUN": str(workdir),
    }
    for word, value in words.items():
        flags = [flag.replace(word, value) for flag in flags]
    result = call(predict, *flags, f"--images={image}")
    assert result.status == 2, result.err
    assert said in result.err


def test_an_object_names_its_adapter():
    names = ["law", "news"]
    assert choose_adapters({"text": "a", "adapter": "news"}, names) == ["news"]
    assert choose_adapters({"text": "a"}, names) == names
    assert choose_adapters("a", names) == names
    with pytest.raises(InputError, match=r"names the adapter 'lw'.*\['law', 'news'\]"):
        choose_adapters({"text": "a", "adapter": "lw"}, names)


@pytest.mark.parametrize(
    ("adapter", "asked", "expected"),
    [
        (Lora(rank=2), "both", "both"),
        (Lora(rank=2), "apart", "apart"),
        (Outside(rank=2), "both", "apart"),
        (Outside(rank=2), "folded", "folded"),  # what `jft.check_foldable` refuses
        (BitFit(), "apart", "apart"),
        (None, "both", "folded"),
    ],
)
def test_how_an_adapter_leaves(adapter, asked, expected):
    config = resolve(common.base_config())
    asked_for = dataclasses.replace(config.export, adapter=asked)
    config = dataclasses.replace(config, export=asked_for)
    model, _ = table.make_model("bert")
    model = model._replace(adapter=adapter)
    assert exported_as(config, model) == expected


def test_what_cannot_be_folded_leaves_apart(call, tiny, base, tmp_path):
    """The run's folder is the adapter with its head; nothing is lost."""
    workdir = tmp_path / "run"
    result = call(
        finetune,
        tiny,
        base,
        "--config.train.num_steps=3",
        "--config.adapter.method=bottleneck",
        "--config.adapter.options.reduction_factor=4",
        f"--workdir={workdir}",
    )
    assert result.status == 0, result.err
    config = json.loads((workdir / "export" / "adapter_config.json").read_text())
    assert config["peft_type"] == "JFT_BOTTLENECK"
    assert not (workdir / "export" / "model.safetensors").exists()
    result = call(export, f"--workdir={workdir}", f"--to={tmp_path / 'again'}")
    assert result.status == 0, result.err
    one, other = (
        load_file(folder / "adapter_model.safetensors")
        for folder in (workdir / "export", tmp_path / "again")
    )
    jax.tree.map(np.testing.assert_array_equal, one, other)
    job = build.make_job(run_config.complete(read_config(workdir)))
    folder, names = base.partition("=")[2], job.model.class_names
    frozen = jft.load(folder, class_names=names, key=jax.random.key(7))
    adapted = jft.load_adapter(workdir / "export", frozen)
    ups = [x for p, x in flatten(adapted.params).items() if p.endswith("_up")]
    assert len(ups) == 2 * frozen.num_layers
    assert all(x.any() for x in ups)
    assert adapted.adapter.reduction_factor == 4


NF4 = "--config.model.quantize=nf4"


def test_a_run_on_a_quantised_base(call, tiny, base, tmp_path):
    """It resumes bit for bit, writes no codes, and exports both ways."""
    workdir, again = tmp_path / "run", tmp_path / "again"
    result = call(finetune, tiny, base, *LORA, NF4, f"--workdir={workdir}")
    assert result.status == 0, result.err
    folded = jft.load(workdir / "export")
    read = build.make_job(run_config.complete(read_config(workdir))).model
    own = workdir / "export" / "adapter"
    plain = jft.load(
        base.partition("=")[2], class_names=folded.class_names, key=jax.random.key(7)
    )
    adapted = jft.load_adapter(own, jft.quantize(plain, "nf4"))
    batch = {"pixel_values": np.ones((2, 8, 8, 1), np.float32)}
    one = folded.apply_fn(folded.params, batch, key=None)
    other = adapted.apply_fn(adapted.params, batch, key=None)
    np.testing.assert_allclose(one, other, atol=1e-5)
    jax.tree.map(  # the codes of the run are the base's
        np.testing.assert_array_equal,
        read.params["vit"]["encoder"],
        adapted.params["vit"]["encoder"],
    )
    shutil.copytree(workdir, again)
    (again / "summary.json").unlink()
    shutil.rmtree(again / "export")
    (last,) = (p for p in (again / "checkpoints").iterdir() if p.name.endswith("4"))
    shutil.rmtree(last)
    result = call(finetune, tiny, base, *LORA, NF4, f"--workdir={again}")
    assert "going on from step 2" in result.out, result.err
    name = "export/adapter/adapter_model.safetensors"
    stored, resumed = load_file(workdir / name), load_file(again / name)
    jax.tree.map(np.testing.assert_array_equal, stored, resumed)
    result = call(export, f"--workdir={again}", f"--to={tmp_path / 'to'}")
    assert result.status == 0, result.err
    one, other = (
        load_file(x / "model.safetensors")
        for x in (workdir / "export", tmp_path / "to")
    )
    jax.tree.map(np.testing.assert_array_equal, one, other)
    manifest = next((again / "checkpoints").glob("*4/manifest.json")).read_text()
    assert "lora_B" in manifest
    assert "frozen/" not in manifest


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["BASE"], "kernel is quantised (nf4), so it cannot train"),
        ([], "model.quantize is 'nf4', but model.pretrained is None"),
        (["BASE", "--config.model.quantize=nf3"], "nf3"),
    ],
)
def test_what_would_train_is_not_quantised(call, tiny, base, tmp_path, flags, said):
    flags = [NF4, *(base if flag == "BASE" else flag for flag in flags)]
    result = call(finetune, tiny, *flags, f"--workdir={tmp_path / 'run'}")
    assert result.status == 2
    assert said in result.err


PROMPT = (
    "--config.adapter.method=prompt",
    "--config.adapter.options.num_virtual_tokens=2",
)


def test_a_prompt_trains_resumes_and_leaves_alone(call, tiny, base, tmp_path):
    """It cannot be folded: "both" leaves the adapter alone, which reads again."""
    one, other = tmp_path / "one", tmp_path / "other"
    result = call(finetune, tiny, base, *PROMPT, f"--workdir={one}")
    assert result.status == 0, result.err
    assert sorted(p.name for p in (one / "export").iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip
    stored = load_file(one / "export" / "adapter_model.safetensors")
    assert len(stored) == 1 + 2  # the prompt, and the head
    shutil.copytree(one, other)
    (other / "summary.json").unlink()
    shutil.rmtree(other / "export")
    (last,) = (p for p in (other / "checkpoints").iterdir() if p.name.endswith("4"))
    shutil.rmtree(last)
    result = call(finetune, tiny, base, *PROMPT, f"--workdir={other}")
    assert "going on from step 2" in result.out, result.err
    again = load_file(other / "export" / "adapter_model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, stored, again)
    assert call(evaluate, f"--workdir={one}").status == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--config.export.adapter=folded"], 'export.adapter="apart"'),
        (
            [
                "--config.train.cache.use=on",
                "--config.optim.unfreeze.method=top_down",
                "--config.data.augment=None",
            ],
            "a prompt makes the texts longer",
        ),
        (["--config.adapter.options.prompt_init=vocab"], "images have no words"),
    ],
)
def test_what_a_prompt_cannot_is_refused_before_the_run(
    call, tiny, base, tmp_path, flags, said
):
    result = call(finetune, tiny, base, *PROMPT, *flags, f"--workdir={tmp_path / 'r'}")
    assert result.status == 2
    assert said in result.err
