# SPDX-License-Identifier: Apache-2.0
"""Where a run starts: the one place that orders the possibilities."""

import os
from pathlib import Path
from typing import Literal, NamedTuple

from jft.checkpoint.manager import Checkpoints
from jft.checkpoint.manifest import CheckpointError


class Start(NamedTuple):
    """Where a run starts."""

    kind: Literal["resume", "initial", "pretrained", "scratch"]
    source: Path | None = None  # directory of checkpoints, or of the pretrained model
    step: int | None = None  # of the checkpoint, for "resume" and "initial"


def choose_start(
    checkpoints: Checkpoints,
    *,
    initial: str | os.PathLike[str] | None = None,
    pretrained: str | os.PathLike[str] | None = None,
) -> Start:
    """Choose: resume > initial checkpoint > pretrained > scratch.

    A run that has saved anything resumes from it, whatever else is given: the same
    command line can be repeated until the run is finished.

    Args:
      checkpoints: those of this run.
      initial: directory of another run's checkpoints, to start from the leaves of
        its best step (its newest, where no step has a value).
      pretrained: folder of a pretrained model.

    Raises:
      CheckpointError: if ``initial`` is chosen and holds no checkpoint.

    Example:
      >>> choose_start(Checkpoints("/no/such/run"), pretrained="vit").kind
      'pretrained'
    """
    latest = checkpoints.latest_step()
    if latest is not None:
        return Start("resume", checkpoints.directory, latest)
    if initial is not None:
        other = Checkpoints(initial)
        best = other.best_step()
        step = other.latest_step() if best is None else best
        if step is None:
            raise CheckpointError(
                f"the initial checkpoint {other.directory} holds no finished step: "
                "give the checkpoints folder of a run that has saved."
            )
        return Start("initial", other.directory, step)
    if pretrained is not None:
        return Start("pretrained", Path(pretrained))
    return Start("scratch")
