# SPDX-License-Identifier: Apache-2.0
"""Labels part what moves from what is frozen, and both join to the same arrays."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from jft.params.quantised import quantize
from jft.partition import (
    check_new_leaves_move,
    check_quantised_stay,
    combine,
    describe,
    label_params,
    num_params,
    split,
    split_by,
)
from jft.types import InputError


@pytest.fixture
def params():
    return {
        "embed": {"table": jnp.ones((4, 2))},
        "block": {"0": {"w": jnp.ones((2, 2))}, "1": {"w": jnp.ones((2, 2))}},
        "head": {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)},
    }


RULES = [("head/.*", "head"), ("block/1/.*", "top"), (".*", "frozen")]


def layer_index(path):
    return {"embed": 0, "head": 3}.get(path.split("/")[0]) or (
        int(path.split("/")[1]) + 1 if path.startswith("block") else 0
    )


def test_labels_have_the_structure_of_the_params(params):
    labels = label_params(params, RULES)
    assert jax.tree.structure(labels) == jax.tree.structure(params)
    assert labels["head"] == {"w": "head", "b": "head"}
    assert labels["block"] == {"0": {"w": "frozen"}, "1": {"w": "top"}}


def test_all_frozen_is_an_error(params):
    with pytest.raises(InputError, match="freeze all 5 parameters"):
        label_params(params, [(".*", "frozen")])


def test_split_and_combine_hold_the_same_arrays(params):
    labels = label_params(params, RULES)
    parts = split(params, labels)
    assert parts.trainable["embed"]["table"] is None
    assert parts.frozen["head"] == {"w": None, "b": None}
    again = combine(*parts)
    assert jax.tree.structure(again) == jax.tree.structure(params)
    for new, old in zip(jax.tree.leaves(again), jax.tree.leaves(params), strict=True):
        assert new is old


def test_three_parts_combine(params):
    first, rest = split_by(params, lambda path: path.startswith("head"))
    second, third = split_by(rest, lambda path: path.startswith("embed"))
    again = combine(first, second, third)
    assert jax.tree.structure(again) == jax.tree.structure(params)


def test_split_lists_both_sides(params):
    labels = label_params(params, RULES)
    labels["extra"] = "head"
    del labels["head"]["b"]
    with pytest.raises(InputError, match=r"\['head/b'\].*\['extra'\]"):
        split(params, labels)


@pytest.mark.parametrize("label", [0, True, "Frozen", "FROZEN"])
def test_a_label_is_a_string_and_frozen_is_written_so(params, label):
    labels = label_params(params, RULES)
    labels["embed"]["table"] = label
    with pytest.raises(InputError, match=r"label of embed/table is .* a string"):
        split(params, labels)


def test_describe_of_what_moves_from_the_start_at_full_rate(params):
    text = describe(params, label_params(params, RULES), layer_index=layer_index)
    head = next(line for line in text.splitlines() if " head " in line)
    assert head.split()[-4:] == ["1", "from", "the", "start"]


def test_describe_of_a_rate_of_0_says_that_it_never_moves(params):
    labels = label_params(params, RULES)
    text = describe(
        params, labels, layer_index=layer_index, multiplier=lambda path: 0.0
    )
    assert all(line.endswith("never") for line in text.splitlines()[2:6])


def test_a_quantised_matrix_may_not_move():
    params = {"dense": {"kernel": quantize(jnp.ones((64, 64)), "int8")}}
    labels = label_params(
        {"dense": params["dense"], "head": jnp.ones(1)},
        [("dense/.*", "frozen"), ("head", "head")],
    )
    check_quantised_stay(params, {"dense": labels["dense"]})
    with pytest.raises(InputError, match=r"dense/kernel is quantised \(int8\)"):
        check_quantised_stay(params, label_params(params, [(".*", "body")]))


def test_describe_says_what_does_not_fit(params):
    labels = label_params(params, RULES)
    with pytest.raises(InputError, match=r"layers \['0'\] .* layer 2 moves"):
        describe(params, labels, layer_index=layer_index, open_at={0: 0})
    with pytest.raises(InputError, match="differ in structure"):
        describe(params["head"], labels, layer_index=layer_index)


def test_a_new_leaf_may_not_be_frozen(params):
    labels = label_params(params, [("block/.*", "body"), (".*", "frozen")])
    check_new_leaves_move(["block/0/w"], labels)
    with pytest.raises(InputError, match=r"would stay random: \['head/b', 'head/w'\]"):
        check_new_leaves_move(["head/w", "head/b"], labels)


def test_describe_counts_everything_once(params):
    labels = label_params(params, RULES)
    text = describe(
        params,
        labels,
        layer_index=layer_index,
        multiplier=lambda path: 0.5 if path.startswith("block") else 1.0,
        open_at={0: 0, 1: 0, 2: 30, 3: ((0, 10), (20, None))},
    )
    rows = {line.split()[1]: line for line in text.splitlines()[2:6]}
    assert rows["embed/table"].split()[-2:] == ["32", "never"]
    assert rows["block/1/w"].split()[-4:] == ["0.5", "from", "step", "30"]
    assert rows["head"].endswith("steps 0-10, 20-end")
    assert "trainable: 13 parameters in 3 leaves, 52 bytes" in text
    assert "frozen: 12 parameters in 2 leaves, 48 bytes" in text
    assert "total: 25 parameters in 5 leaves, 100 bytes" in text


def test_kernels_that_hold_arrays_are_not_quantised():
    state = nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    process = {"kernel": {"length": jnp.ones(2), "variance": jnp.ones(())}}
    for tree, size in ((state, 9), ({"gp": process}, 3)):
        labels = label_params(tree, [(".*", "all")])
        assert jax.tree.structure(labels) == jax.tree.structure(tree)
        assert num_params(tree) == size
        assert f"total: {size} parameters" in describe(
            tree, labels, layer_index=lambda path: 0
        )
