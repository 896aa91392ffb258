# SPDX-License-Identifier: Apache-2.0
"""Paths of any pytree, and rules that match the whole of them."""

from typing import NamedTuple

import jax.numpy as jnp
import pytest
from flax import nnx

from jft import paths
from jft.types import InputError


def test_first_full_match_wins():
    rules = [("a/.*", 1), ("a", 2), (".*b", 3)]
    assert paths.match_rules(rules, ["a/b", "a", "b", "ab"]) == {
        "a/b": 1,
        "a": 2,
        "b": 3,
        "ab": 3,
    }


def test_a_substring_is_no_match():
    with pytest.raises(InputError, match=r"no rule matches: \['head/kernel'\]"):
        paths.match_rules([("head", 0), ("x", 1)], ["head", "x", "head/kernel"])


def test_both_sides_are_listed_sorted():
    rules = [("a", 0), ("zz", 1), ("yy", 2)]
    with pytest.raises(InputError) as error:
        paths.match_rules(rules, ["a", "d", "c"])
    assert "['c', 'd']" in str(error.value)
    assert "['yy', 'zz']" in str(error.value)


def test_a_shadowed_rule_is_unused():
    with pytest.raises(InputError, match=r"win no path: \['a'\]"):
        paths.match_rules([(".*", 0), ("a", 1)], ["a"])


def test_a_broken_regex_is_named():
    with pytest.raises(InputError, match=r"'\(' is no regular expression"):
        paths.match_rules([("(", 0)], ["a"])


def test_a_whole_path_is_shown_where_rules_do_not_fit():
    with pytest.raises(InputError, match="one of them is 'head/w'"):
        paths.match_rules([("head", 0), ("head/w", 1)], ["head/w"])


def test_what_is_a_leaf_can_be_said():
    tree = {"a": (1, 2), "b": {"c": 3}}
    flat = paths.flatten(tree, is_leaf=lambda x: isinstance(x, tuple))
    assert flat == {"a": (1, 2), "b/c": 3}


def test_flatten_and_unflatten_are_inverse():
    tree = {"a": {"0": 1, "1": {"b": 2}}, "c": 3}
    assert paths.unflatten(paths.flatten(tree)) == tree


def test_nnx_has_the_paths_of_its_pure_dict_and_keeps_its_types():
    module = nnx.List([nnx.Linear(2, 3, rngs=nnx.Rngs(0))])
    state = nnx.state(module)
    for tree in (nnx.to_pure_dict(state), state, module):
        assert list(paths.flatten(tree)) == ["0/bias", "0/kernel"]
    shapes = paths.map_with_path(lambda path, x: (path, x.shape), state)
    assert type(shapes[0]["kernel"]) is nnx.Param
    assert shapes[0]["kernel"].get_value() == ("0/kernel", (2, 3))


class Projections(NamedTuple):
    query: int
    value: int  # a name like any other


def test_attributes_are_keys():
    assert paths.flatten({"a": Projections(1, 2)}) == {"a/query": 1, "a/value": 2}


def test_map_where_takes_only_what_all_trees_have():
    tree, other = {"a": 1, "b": {"c": 2, "d": 3}, "e": None}, {"b": {"c": 10, "x": 9}}
    pair, third = lambda *args: args, {"b": {"c": 20, "d": 30}, "a": 0}
    assert paths.map_where(pair, tree, other, third) == {
        "a": 1,
        "b": {"c": ("b/c", 2, 10, 20), "d": 3},
        "e": None,
    }


def test_map_with_path_keeps_holes():
    tree = {"a": None, "b": jnp.ones(2)}
    mapped = paths.map_with_path(lambda path, x: path, tree)
    assert mapped == {"a": None, "b": "b"}
