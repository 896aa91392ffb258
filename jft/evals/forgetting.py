# SPDX-License-Identifier: Apache-2.0
"""What the source task loses: its old head is kept aside and put back to ask."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jft import paths
from jft.types import InputError, Params


def set_head_aside(params: Params, *, head: str) -> dict[str, np.ndarray]:
    """Copy the head's parameters to the host, before training replaces them.

    Args:
      params: of the source task's model.
      head: regex that the head's paths match in full.

    Returns:
      ``{path: array}`` of the head.

    Raises:
      InputError: if the regex matches no path.

    Example:
      >>> params = {"body": np.ones(2), "classifier": {"bias": np.zeros(3)}}
      >>> set_head_aside(params, head="classifier/.*")
      {'classifier/bias': array([0., 0., 0.])}
    """
    flat = paths.flatten(params)
    aside = {path: leaf for path, leaf in flat.items() if re.fullmatch(head, path)}
    if not aside:
        raise InputError(
            f"the regex {head!r} for the head matches none of the paths "
            f"{sorted(flat)}. It must match a whole path, such as 'classifier/.*'."
        )
    return {path: np.array(jax.device_get(leaf)) for path, leaf in aside.items()}


def put_head_back(params: Params, head_aside: Mapping[str, np.ndarray]) -> Params:
    """Give the fine-tuned body the source task's head; ``params`` is left as it is.

    What the new task's model lacks is added, and what only it has stays: the source
    task's forward does not read it.
    """
    return paths.with_leaves(params, head_aside)


def forgetting_report(
    before: float, after: float, *, source: str, metric: str = "accuracy"
) -> dict[str, Any]:
    """What ``summary.json`` says about forgetting; ``change`` is after minus before.

    >>> forgetting_report(0.75, 0.5, source="letters")["change"]
    -0.25
    """
    return {
        "source": source,
        "metric": metric,
        "before": before,
        "after": after,
        "change": after - before,
    }
