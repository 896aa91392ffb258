# SPDX-License-Identifier: Apache-2.0
"""Any key can be set on the command line, and is checked like the file's own."""

import pytest

from configs import common
from jft.config import apply_overrides, resolve
from jft.config.overrides import split_overrides
from jft.types import InputError


def test_overrides_are_taken_out_and_read_as_literals():
    words = [
        "run",
        "--config=a.py",
        "--config.seed=3",
        "--config.optim.clip_norm=None",
        "--config.data.path",
        "some/folder",
        "--workdir=w",
        "--config.data.source_options={'n': 2}",
        "--config.seed=4",
    ]
    overrides, rest = split_overrides(words)
    assert rest == ["run", "--config=a.py", "--workdir=w"]
    assert overrides == {
        "seed": 4,
        "optim.clip_norm": None,
        "data.path": "some/folder",
        "data.source_options": {"n": 2},
    }


@pytest.mark.parametrize(
    "words",
    [["--config.seed"], ["--config.seed="], ["--config.=3"], ["--config.a..b=3"]],
)
def test_an_override_needs_a_key_and_a_value(words):
    with pytest.raises(InputError, match="has no key or no value"):
        split_overrides(words)


def test_the_config_handed_in_is_left_alone():
    base = common.base_config().to_dict()
    new = apply_overrides(base, {"seed": 7, "optim.hyperparams.b1": 0.5})
    assert base == common.base_config().to_dict()
    assert resolve(new).seed == 7
    assert resolve(new).optim.hyperparams == {"b1": 0.5}


def test_a_duration_replaces_any_other_unit():
    base = common.base_config().to_dict()
    new = apply_overrides(
        base, {"train.num_steps": 9, "optim.unfreeze.every_examples": 64}
    )
    assert str(resolve(new).train.num) == "9 steps"
    assert str(resolve(new).optim.unfreeze.every) == "64 examples"


def test_two_units_on_the_command_line_conflict():
    base = common.base_config().to_dict()
    new = apply_overrides(base, {"train.num_steps": 9, "train.num_percent": 5})
    with pytest.raises(InputError, match="given: num_steps=9, num_percent=5"):
        resolve(new)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"seed.x": 1}, "seed is 0, not a section"),
        ({"trian.num_steps": 1}, "unknown config key trian. Did you mean train"),
        ({"train.nums_steps": 1}, "unknown config key train.nums_steps"),
        ({"optim.learning_rate": "1e-3x"}, "optim.learning_rate is '1e-3x'"),
    ],
)
def test_what_does_not_fit_is_named(overrides, sentence):
    with pytest.raises(InputError, match=sentence):
        resolve(apply_overrides(common.base_config().to_dict(), overrides))
