# SPDX-License-Identifier: Apache-2.0
"""What a config needs, a checkpoint or a single process, is asked for at the start."""

import jax
import pytest

from experiments import run_config
from jft.types import InputError

BASE = "configs/digits.py"
SET = {
    "adapter.method": "lora",
    "model.quantize": "nf4",
    "model.reinit_layers": 1,
    "source.name": "letters",
    "train.lwf.weight": 1.0,
    "train.replay.share": 0.5,
    "train.mixout": 0.1,
    "train.teacher.model": "jft:letters_vit",
    "optim.l2_sp": 0.1,
    "optim.l2_sp_rules": [(".*", 1.0)],
    "optim.ewc.strength": 1.0,
}


@pytest.mark.parametrize("key", run_config.NEED_A_CHECKPOINT)
def test_what_needs_a_checkpoint_is_refused_without_one(key):
    overrides = {"model.pretrained": None, "source.name": None, key: SET[key]}
    with pytest.raises(InputError, match=rf"^{key} is .* model.pretrained is None: "):
        run_config.load(BASE, overrides)


@pytest.mark.parametrize("key", run_config.NEED_ONE_PROCESS)
def test_what_runs_beside_the_steps_needs_one_process(key, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(InputError, match=rf"^{key} is .* one process only, .* are 2"):
        run_config.load(BASE, {key: SET[key]})
