# SPDX-License-Identifier: Apache-2.0
"""A run with an adapter: what it prints, resumes and leaves."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

import jft
from configs import common
from experiments import build, evaluate, export, finetune
from jft.config import AdapterConfig, read_config, resolve
from jft.params.adapters import ADAPTERS, BitFit, Lora
from tests.params.adapters import table


class Outside(Lora):
    """A method that no base could hold."""

    foldable = False


LORA = (
    "--config.adapter.method=lora",
    "--config.adapter.rank=2",
    "--config.adapter.dropout=0.1",
    "--config.optim.multipliers.lora_B=16",
)


@pytest.fixture(scope="module")
def adapter_run(call, tiny, base, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("adapter") / "run"
    result = call(finetune, tiny, base, *LORA, f"--workdir={workdir}")
    assert result.status == 0, result.err
    return workdir, result.out


def test_settings_are_those_of_the_methods():
    settings = {field.name for field in dataclasses.fields(AdapterConfig)}
    known = {f.name for method in ADAPTERS.values() for f in dataclasses.fields(method)}
    assert settings == known | {"method"}


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
    job = build.make_job(build.complete(read))
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
            ["BASE", "--config.adapter.method=lora", "--config.adapter.rank=99"],
            "rank 99",
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
    if said is None:  # PEFT has (IA)³ and no BitFit
        has_ia3 = "--config.adapter.method=ia3" in flags
        assert (tmp_path / "run" / "export" / "adapter").exists() == has_ia3


PROMPT = (
    "--config.adapter.method=prompt",
    "--config.adapter.num_virtual_tokens=2",
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
        (["--config.adapter.prompt_init=vocab"], "images have no words"),
    ],
)
def test_what_a_prompt_cannot_is_refused_before_the_run(
    call, tiny, base, tmp_path, flags, said
):
    result = call(finetune, tiny, base, *PROMPT, *flags, f"--workdir={tmp_path / 'r'}")
    assert result.status == 2
    assert said in result.err


@pytest.mark.parametrize(
    ("adapter", "asked", "expected"),
    [
        (Lora(rank=2), "both", "both"),
        (Lora(rank=2), "apart", "apart"),
        (Outside(rank=2), "both", "apart"),
        (Outside(rank=2), "folded", "folded"),  # what `jft.check_foldable` refuses
        (BitFit(), "apart", "folded"),
        (None, "both", "folded"),
    ],
)
def test_how_an_adapter_leaves(adapter, asked, expected):
    config = resolve(common.base_config())
    asked_for = dataclasses.replace(config.export, adapter=asked)
    config = dataclasses.replace(config, export=asked_for)
    model, _ = table.make_model("bert")
    model = model._replace(adapter=adapter)
    assert build.exported_as(config, model) == expected
