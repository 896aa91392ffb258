# SPDX-License-Identifier: Apache-2.0
"""A config file is loaded with its argument, or its fault is one sentence."""

import pytest

from jft.config import load_config_file, make_config_dict, set_duration
from jft.types import InputError

GOOD = """
from jft.config import make_config_dict
def get_config(arg="none"):
    return make_config_dict({"arg": arg})
"""


@pytest.mark.parametrize(
    ("suffix", "arg"), [("", "none"), (":", ""), (":a=1", "a=1"), (":a:b", "a:b")]
)
def test_what_follows_the_first_colon_is_the_argument(tmp_path, suffix, arg):
    (tmp_path / "mine.py").write_text(GOOD)
    name, config = load_config_file(f"{tmp_path}/mine.py{suffix}")
    assert (name, config) == ("mine", {"arg": arg})


@pytest.mark.parametrize("spec", ["", "absent.py", ".", "README.md", ":quicktest"])
def test_what_is_no_config_file_is_named(spec):
    with pytest.raises(InputError, match="names no config file"):
        load_config_file(spec)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("def get_config(:", "failed with SyntaxError"),
        ("import absent_module", "failed with ModuleNotFoundError: .*absent_module"),
        ("", "failed with AttributeError: .*get_config"),
        ("def get_config():\n    return 1", "failed with AttributeError: .*to_dict"),
        ("def get_config():\n    return {}[3]", "failed with KeyError: 3"),
        (
            "from jft.types import InputError\n"
            "def get_config():\n    raise InputError('its own words')",
            "^its own words$",
        ),
    ],
)
def test_a_file_that_fails_is_one_sentence(tmp_path, text, sentence):
    (tmp_path / "bad.py").write_text(text)
    with pytest.raises(InputError, match=sentence):
        load_config_file(str(tmp_path / "bad.py"))


def test_set_duration_changes_the_unit_of_a_locked_section():
    config = make_config_dict({"train": {"num_epochs": 3, "num_workers": 1}})
    set_duration(config.train, num_steps=8)
    assert config.to_dict() == {"train": {"num_steps": 8, "num_workers": 1}}
    assert config.train.is_locked
    with pytest.raises(InputError, match="no duration every_steps"):
        set_duration(config.train, every_steps=8)
