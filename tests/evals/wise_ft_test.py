# SPDX-License-Identifier: Apache-2.0
"""Each model between two is scored on each split, with the head that is kept."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from jft.evals import plot_wise_ft, wise_ft_curve
from jft.types import InputError


def test_every_point_is_scored_on_every_split_with_the_kept_head():
    old = {"body": np.zeros(1, np.float32), "head": np.zeros(3)}
    new = {"body": np.ones(1, np.float32), "head": np.ones(2)}
    score_fns = {
        "source": lambda params: {"accuracy": 1 - params["body"].item()},
        "test": lambda params: {"accuracy": params["head"].sum().item()},
    }
    curve = wise_ft_curve(old, new, [0.0, 0.25, 1.0], score_fns, keep=["head"])
    assert [point["alpha"] for point in curve] == [0.0, 0.25, 1.0]
    assert [point["source"]["accuracy"] for point in curve] == [1.0, 0.75, 0.0]
    assert [point["test"]["accuracy"] for point in curve] == [2.0, 2.0, 2.0]
    with pytest.raises(InputError, match="alphas are empty"):
        wise_ft_curve(old, new, [], score_fns)


def test_the_picture_has_every_point_with_the_old_task_to_the_right(
    tmp_path, monkeypatch
):
    drawn, savefig = [], Figure.savefig

    def save(figure, *args, **options):
        drawn.append(figure)
        savefig(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", save)
    curve = [
        {"alpha": a, "source": {"accuracy": 1 - a}, "test": {"accuracy": a * (2 - a)}}
        for a in (0.0, 0.5, 1.0)
    ]
    file = plot_wise_ft(
        curve, tmp_path / "curve.png", source_name="letters", target_name="digits"
    )
    with Image.open(file) as image:
        assert min(image.size) > 500
    ((axes,),) = (figure.axes for figure in drawn)
    (line,) = axes.lines
    np.testing.assert_allclose(line.get_xydata(), [(1, 0), (0.5, 0.75), (0, 1)])
    assert [text.get_text() for text in axes.texts] == ["0", "0.5", "1"]
    assert axes.get_xlabel() == "letters accuracy"
    assert axes.get_ylabel() == "digits accuracy"
