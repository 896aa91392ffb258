# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint gave, lacked and left over is told; a misfit is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jft.params import Unread, merge
from jft.types import InputError


def loaded():
    return {
        "body": {"kernel": np.full((2, 3), 7.0, np.float32)},
        "head": {"kernel": np.ones((3, 4), np.float32), "bias": np.ones(4, np.float32)},
        "pooler": {"bias": Unread((3,))},
    }


def init(classes=4):
    return {
        "body": {"kernel": jax.ShapeDtypeStruct((2, 3), jnp.bfloat16)},
        "head": {"kernel": jnp.zeros((3, classes)), "bias": jnp.zeros(classes)},
    }


def test_report_covers_both_sides_without_overlap():
    params, report = merge(loaded(), init(5), reinit=["head/.*"])
    assert report.used == ("body/kernel",)
    assert report.new == ("head/bias", "head/kernel")
    assert report.unused == ("pooler/bias",)
    assert report.mismatched == {
        "head/bias": ((4,), (5,)),
        "head/kernel": ((3, 4), (3, 5)),
    }
    assert params["head"]["kernel"].shape == (3, 5)
    assert params["body"]["kernel"].dtype == jnp.bfloat16
    assert (params["body"]["kernel"] == 7).all()


def test_reinit_rules_even_where_the_shape_fits():
    params, report = merge(loaded(), init(), reinit=["head/.*"])
    assert (params["head"]["kernel"] == 0).all()
    assert report.mismatched == {}
    assert report.unused == ("head/bias", "head/kernel", "pooler/bias")


def test_report_reads_well():
    _, report = merge(loaded(), init(5), reinit=["head/.*"])
    assert str(report).splitlines() == [
        "1 parameters from the checkpoint",
        "  drawn new   head/bias [5], was [4]",
        "  drawn new   head/kernel [3, 5], was [3, 4]",
        "  not used    pooler/bias",
    ]


def test_another_shape_is_refused():
    with pytest.raises(InputError, match=r"head/kernel: \[3, 4\] in the checkpoint"):
        merge(loaded(), init(5))


def test_absent_parameters_are_refused_with_both_lists():
    tree = init()
    tree["body"]["bias"] = jnp.zeros(3)
    with pytest.raises(InputError, match=r"lacks: \['body/bias'\].*'pooler/bias'"):
        merge(loaded(), tree)


def test_idle_reinit_rule_is_refused():
    with pytest.raises(InputError, match=r"\['classifier/\.\*'\] match no parameter"):
        merge(loaded(), init(), reinit=["classifier/.*"])
