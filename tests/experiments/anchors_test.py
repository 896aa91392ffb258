# SPDX-License-Identifier: Apache-2.0
"""What holds a run to its base: that a run uses it, and what is refused."""


import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments import finetune

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


# --- bad input ------------------------------------------------------------------------
# overrides -> words of the message; with the base, and without
FROM_SCRATCH = [
    (["optim.l2_sp=0.1"], ["optim.l2_sp is 0.1", "nothing to return to"]),
    (["optim.l2_sp_rules=[['.*',1.0]]"], ["optim.l2_sp_rules", "nothing to return to"]),
]
REFUSED = [
    (["optim.l2_sp=-1.0"], ["optim.l2_sp", "-1.0"]),
    (["optim.l2_sp_rules=[['.*',-1.0]]"], ["optim.l2_sp_rules[0][1]", "-1.0"]),
    (["optim.l2_sp_rules=[['bert/.*',1.0]]"], ["bert/.*", "win no path"]),
    (
        ["optim.l2_sp=0.1", "partition.rules=[['classifier/.*','h'],['.*','frozen']]"],
        ["optim.l2_sp", "none of those that move"],
    ),
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
