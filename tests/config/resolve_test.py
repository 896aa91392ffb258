# SPDX-License-Identifier: Apache-2.0
"""A config becomes a frozen record; each fault names its key and the likely one."""

import copy
import dataclasses
import json

import pytest

from configs import common
from jft.config import (
    Config,
    Duration,
    config_digest,
    differences,
    from_json,
    make_config_dict,
    resolve,
    to_dict,
    to_json,
)
from jft.types import InputError


def changed(**changes):
    """The base config with ``section__key=value`` replaced; "absent" removes."""
    values = common.base_config().to_dict()
    for dotted, value in changes.items():
        *path, name = dotted.split("__")
        section = values
        for key in path:
            section = section[key]
        if value == "absent":
            del section[name]
        else:
            section[name] = value
    return values


def test_a_config_dict_and_its_nested_dicts_resolve_alike():
    config = common.base_config()
    assert resolve(config) == resolve(config.to_dict())


def test_every_default_is_a_value_that_resolves_to_itself():
    assert resolve(common.base_config()) == Config()


def test_values_are_converted_and_frozen():
    config = resolve(
        changed(
            optim__learning_rate=1,
            optim__unfreeze__open_at=[[5, 0], (4, 10)],
            train__num_epochs="absent",
            train__num_steps=30,
        )
    )
    assert config.optim.learning_rate == 1.0
    assert isinstance(config.optim.learning_rate, float)
    assert config.optim.unfreeze.open_at == ((5, 0), (4, 10))
    assert config.train.num == Duration(amount=30, unit="steps")
    assert config.checkpoint.keep_every is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1


def test_json_round_trip_and_digest():
    config = resolve(changed(optim__hyperparams={"b2": 0.9, "b1": 0.5}))
    again = from_json(to_json(config))
    assert again == config
    assert resolve(to_dict(config)) == config
    assert to_json(again) == to_json(config)
    assert config_digest(again) == config_digest(config)
    assert config_digest(resolve(changed(seed=1))) != config_digest(resolve(changed()))
    assert list(json.loads(to_json(config))) == [
        "seed",
        *("data", "source", "model", "adapter", "partition", "optim"),
        *("train", "checkpoint", "evals", "export"),
    ]


def test_the_order_of_a_dict_makes_no_difference():
    sizes = {"train": 10, "test": "rest"}
    turned = dict(reversed(sizes.items()))
    one = resolve(changed(data__split_sizes=sizes))
    other = resolve(changed(data__split_sizes=turned))
    assert list(one.data.split_sizes) == list(other.data.split_sizes)
    assert to_json(one) == to_json(other)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"seed": 0}'])
def test_what_is_no_config_is_refused(text):
    with pytest.raises(InputError, match="config"):
        from_json(text)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        # unknown and missing keys
        (
            {"optim__lerning_rate": 1.0},
            "unknown config key optim.lerning_rate. Did you mean optim.learning_rate. "
            "Known keys of optim: auto_rgn_batches",
        ),
        ({"trian": {}}, "unknown config key trian. Did you mean train"),
        ({"train__num_hours": 1}, "unknown config key train.num_hours"),
        ({"data__source": "absent"}, "missing config key data.source"),
        ({"optim__unfreeze__method": "absent"}, "missing .* optim.unfreeze.method"),
        ({"export": "absent"}, "missing config key export"),
        # durations
        ({"train__num_epochs": None}, "train.num_.* exactly one of .* given: none"),
        ({"train__num_steps": 5}, "given: num_steps=5, num_epochs=10"),
        ({"evals__eval_every_epochs": "1"}, "evals.eval_every_epochs is '1' .str."),
        # types
        ({"seed": 0.5}, "seed is 0.5 .float.; expected a whole number at least 0"),
        ({"seed": True}, "seed is True .bool.; expected a whole number"),
        ({"optim__learning_rate": "fast"}, "'fast' .str.; expected a number above 0"),
        ({"optim__learning_rate": float("nan")}, "nan .float.; expected a number"),
        ({"optim__learning_rate": float("inf")}, "is inf .float.; expected a number"),
        ({"optim__learning_rate": 0}, "is 0 .int.; expected a number above 0"),
        ({"optim__clip_norm": True}, "expected a number above 0 or None"),
        ({"export__enabled": 1}, "export.enabled is 1 .int.; expected True or False"),
        ({"data__path": 3}, "data.path is 3 .int.; expected a string or None"),
        ({"train__mesh": 4}, "train.mesh is 4; expected a section .* data, fsdp"),
        ({"partition__rules": [["a"]]}, r"partition.rules\[0\] is \['a'\]"),
        ({"partition__rules": ".*"}, r"expected a list, each item \(a string, a str"),
        ({"evals__metrics": ["a", 1]}, r"evals.metrics\[1\] is 1 .int."),
        ({"optim__hyperparams": [1]}, "optim.hyperparams .* a dict with string keys"),
        ({"optim__multipliers": {"head": "x"}}, "optim.multipliers.head is 'x'"),
        # ranges and choices
        ({"data__global_batch_size": 0}, "is 0 .int.; .* whole number at least 1"),
        ({"optim__layer_decay": 1.5}, "is 1.5 .* at most 1 and above 0 or None"),
        ({"optim__ema_decay": 1.0}, "expected a number at least 0 and below 1 or None"),
        (
            {"train__phases": "all"},
            "train.phases is 'all' .str.; .* 'compiled', 'gated'",
        ),
        ({"model__dtype": ["float32"]}, "model.dtype is .* one of 'float32'"),
    ],
)
def test_each_fault_names_its_key(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        resolve(changed(**changes))


def test_a_typo_in_a_config_file_does_not_make_a_new_key():
    with pytest.raises(AttributeError, match="learning_rate"):
        common.base_config().optim.lerning_rate = 1.0


def test_differences_lists_exactly_the_changed_keys():
    ours = resolve(changed())
    theirs = resolve(changed(seed=3, train__num_epochs=None, train__num_steps=7))
    assert differences(ours, theirs) == {
        "seed": (0, 3),
        "train.num_epochs": (10, None),
        "train.num_steps": (None, 7),
    }
    assert differences(ours, copy.deepcopy(ours)) == {}


def test_a_locked_config_dict_keeps_nested_dicts():
    config = make_config_dict({"a": {"b": [1, {"c": 2}]}})
    assert config.to_dict() == {"a": {"b": [1, {"c": 2}]}}
