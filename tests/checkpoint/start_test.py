# SPDX-License-Identifier: Apache-2.0
"""A run resumes, else starts from a checkpoint, else pretrained, else from scratch."""

import pytest

from jft.checkpoint import CheckpointError, Checkpoints, Start, choose_start


def test_order_resume_initial_pretrained_scratch(tmp_path, example):
    own, other = Checkpoints(tmp_path / "own"), Checkpoints(tmp_path / "other")
    with other:
        example.save(other, 4, best_value=0.9)
        example.save(other, 5, best_value=0.1)
    pretrained = tmp_path / "vit"
    assert choose_start(own) == Start("scratch")
    assert choose_start(own, pretrained=pretrained) == Start("pretrained", pretrained)
    initial = choose_start(own, initial=other.directory, pretrained=pretrained)
    assert initial == Start("initial", other.directory, 4)  # its best, not its newest
    with own:
        example.save(own, 2)
    resume = choose_start(own, initial=other.directory, pretrained=pretrained)
    assert resume == Start("resume", own.directory, 2)
    unranked = choose_start(Checkpoints(tmp_path / "new"), initial=own.directory)
    assert unranked == Start("initial", own.directory, 2)


def test_an_initial_directory_without_a_step_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="holds no finished step"):
        choose_start(Checkpoints(tmp_path / "a"), initial=tmp_path / "b")
