# SPDX-License-Identifier: Apache-2.0
"""The benchmark measures both sides, as often as asked, and says what it ran on."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import benchmark, build, feed, run_config
from experiments.benchmarks import torch_peer
from tests.experiments.conftest import load_tiny

CONFIGS = Path(__file__).parents[2] / "configs"


def test_loader_and_step_are_measured_in_turn(call, tiny, tmp_path):
    """A row for each config."""
    output = tmp_path / "out.json"
    measure = ["--steps=2", "--rounds=3", f"--output={output}"]
    argv = ["--suite=loader", tiny, tiny, *measure]
    result = call(benchmark, *argv)
    assert result.status == 0, result.err
    facts = json.loads(output.read_text())
    measured, other = facts["results"]
    assert measured["config"] == other["config"] == "tiny"
    for side in ("loader", "step"):
        assert len(measured[side]) == 3
        assert min(measured[side]) > 0
    assert {"jax", "python"} <= set(facts["versions"])
    assert {"device", "cores", "date"} <= set(facts["machine"])
    assert result.out.splitlines()[-1].split()[0] == "tiny"


def test_a_step_is_compared_with_torchs(call, tiny_bert, reviews, tmp_path):
    """Both take the same batch, and each has the memory of a process of its own."""
    pytest.importorskip("torch", reason="torch is in the extras parity and bench")
    output = tmp_path / "out.json"
    config = f"--config={CONFIGS}/sst2.py:moves=head,pretrained={tiny_bert}"
    argv = [config, f"--set=data.path={reviews}", "--shape=4x24", "--steps=1"]
    result = call(benchmark, "--suite=step", *argv, f"--output={output}")
    assert result.status == 0, result.err
    (head,) = json.loads(output.read_text())["results"]
    assert head["shape"] == [4, 24]
    assert head["trainable"] == 34
    assert head["flops"] > 0
    assert len(head["jft"]) == len(head["torch"]) == len(head["ratio"]) == 3
    # the whole process has more than the program; here the imports are most of it
    assert min(head["peak"].values()) > max(1e8, head["bytes"])
    assert "peak MB (ratio)" in result.out


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft
def test_an_adapter_is_compared_with_pefts(call, tiny_bert, reviews, tmp_path):
    """The same adapter moves in both, and nothing else but the head."""
    pytest.importorskip("torch", reason="torch is in the extras parity and bench")
    pytest.importorskip("peft", reason="peft is in the extras parity and bench")
    output = tmp_path / "out.json"
    spec = f"{CONFIGS}/sst2.py:pretrained={tiny_bert}"
    lora = {"adapter.method": "lora", "data.path": str(reviews)}
    changes = [f"--set={name}={value}" for name, value in lora.items()]
    argv = [f"--config={spec}", *changes, "--shape=4x24", "--steps=1", "--rounds=1"]
    result = call(benchmark, "--suite=step", *argv, f"--output={output}")
    assert result.status == 0, result.err
    (measured,) = json.loads(output.read_text())["results"]
    job = build.make_job(run_config.load(spec, lora))
    model = torch_peer.load(job)
    names = torch_peer.moving(job, model)
    of_torch = torch_peer.freeze(model, names)
    moving = {name: x for name, x in of_torch.items() if name in names}
    assert measured["trainable"] == sum(x.numel() for x in moving.values())
    assert all("lora" in name or "classifier" in name for name in moving)


def test_a_process_says_the_most_memory_that_it_had():
    """Also when it has given it back; in a process of its own."""
    code = (
        "import numpy as np; from experiments.benchmarks.torch_steps import *;"
        "before = most_resident(); x = np.ones(10**8, np.uint8); del x;"
        "print(most_resident() - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert 0.9e8 < int(done.stdout) < 1.2e8


def test_what_moves_is_found_in_torchs_vit():
    """Whose modules transformers calls by other names than its checkpoints."""
    pytest.importorskip("torch", reason="torch is in the extras parity and bench")
    job = build.make_job(load_tiny())
    model = torch_peer.load(job)
    names = torch_peer.moving(job, model)
    assert set(torch_peer.freeze(model, names)) == set(names)


def test_torch_is_given_the_same_rows_and_batches(tiny_bert, reviews):
    """Texts token by token, and photographs with the channels first."""
    pytest.importorskip("torch", reason="torch is in the extras parity and bench")
    spec = f"{CONFIGS}/sst2.py:pretrained={tiny_bert}"
    job = build.make_job(run_config.load(spec, {"data.path": str(reviews)}))
    rows = torch_peer.make_rows(job, "validation")
    assert len(rows) == len(job.tables["validation"]) == 24
    for i, row in enumerate(rows):
        ours = job.tables["validation"][i]
        np.testing.assert_array_equal(row["input_ids"], ours["input_ids"])
        assert row["labels"] == ours["targets"]
    batch = torch_peer.Collator(job.tables["train"].padding)(rows)
    assert batch["input_ids"].shape == (24, max(len(row["input_ids"]) for row in rows))

    images = build.make_job(load_tiny())
    (*rows,) = torch_peer.make_rows(images, "validation")
    assert len(rows) == len(images.tables["validation"])
    ours = next(
        iter(
            feed.make_eval_batches(
                images.config.data, images.tables["validation"], images.model
            )
        )
    )
    theirs = torch_peer.Collator({})(rows[: len(ours["targets"])])
    np.testing.assert_array_equal(
        theirs["pixel_values"].numpy().transpose(0, 2, 3, 1), ours["pixel_values"]
    )
    np.testing.assert_array_equal(theirs["labels"], ours["targets"])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "--suite=None"),
        (["--suite=loader"], "--config=[]"),
        (
            ["--suite=step", "--config=x.py", "--shape=16"],
            "expected rows x tokens",
        ),
        (["--suite=step", "--config=x.py", "--seeds=a"], "expected numbers"),
    ],
)
def test_what_is_missing_or_wrong_is_named(call, argv, message):
    result = call(benchmark, *argv)
    assert result.status == 2
    assert message in result.err
