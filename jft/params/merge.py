# SPDX-License-Identifier: Apache-2.0
"""Put a checkpoint's values into a model's tree, and say what went where."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jft.params.init import matches_any
from jft.paths import flatten, map_with_path
from jft.types import InputError, Params

Shape = tuple[int, ...]


class MergeReport(NamedTuple):
    """Both sides of a merge, sorted.

    The model's paths are ``used`` and ``new``; the checkpoint's are ``used``,
    ``unused`` and the keys of ``mismatched``, which are all ``new`` in the model.
    """

    used: tuple[str, ...]
    new: tuple[str, ...]
    unused: tuple[str, ...]
    mismatched: Mapping[str, tuple[Shape, Shape]]  # path -> (checkpoint's, model's)

    def __str__(self) -> str:
        """List what was not simply used, one path a line."""
        lines = [f"{len(self.used)} parameters from the checkpoint"]
        lines += [f"  drawn new   {path}{self._was(path)}" for path in self.new]
        lines += [f"  not used    {path}" for path in self.unused]
        return "\n".join(lines)

    def _was(self, path: str) -> str:
        if path not in self.mismatched:
            return ""
        was, now = self.mismatched[path]
        return f" {list(now)}, was {list(was)}"


def merge(
    loaded: Params, init: Params, *, reinit: Sequence[str] = ()
) -> tuple[Params, MergeReport]:
    """Take each of the model's parameters from the checkpoint, or new where asked.

    Args:
      loaded: the checkpoint's values at the model's paths, as ``load_pretrained``
        returns them; cast to the dtypes of ``init``.
      init: the model's parameters; leaves that no regex of ``reinit`` matches are
        read for their shape and dtype only and may be ``jax.ShapeDtypeStruct``.
      reinit: regexes of the paths to keep from ``init`` whatever the checkpoint
        holds; each must match a path in full.

    Returns:
      The parameters, in the structure of ``init``, and the report.

    Raises:
      InputError: if a leaf outside ``reinit`` is absent from the checkpoint or has
        another shape there, or a regex matches nothing.

    Example:
      >>> old, new = {"w": np.ones(2), "b": np.ones(1)}, {"w": np.zeros(2)}
      >>> params, report = merge(old, new)
      >>> params["w"], report.unused
      (array([1., 1.]), ('b',))
    """
    theirs, ours = flatten(loaded), flatten(init)
    new = {path for path in ours if matches_any(reinit, path)}
    _check_reinit(reinit, ours)
    wrong = {
        path: (tuple(theirs[path].shape), tuple(ours[path].shape))
        for path in sorted(theirs.keys() & ours.keys())
        if tuple(theirs[path].shape) != tuple(ours[path].shape)
    }
    _check_complete(
        absent=sorted(ours.keys() - theirs.keys() - new),
        unused=sorted(theirs.keys() - ours.keys()),
        wrong={path: shapes for path, shapes in wrong.items() if path not in new},
    )
    used = ours.keys() - new
    report = MergeReport(
        used=tuple(sorted(used)),
        new=tuple(sorted(new)),
        unused=tuple(sorted(theirs.keys() - used - wrong.keys())),
        mismatched=wrong,
    )

    def choose(path: str, leaf: Any) -> Any:
        assert path in used or not isinstance(leaf, jax.ShapeDtypeStruct), path
        return np.asarray(theirs[path], leaf.dtype) if path in used else leaf

    return map_with_path(choose, init), report


def _check_reinit(reinit: Sequence[str], ours: Mapping[str, Any]) -> None:
    idle = [rule for rule in reinit if not any(matches_any([rule], p) for p in ours)]
    if idle:
        raise InputError(
            f"reinit rules {sorted(idle)} match no parameter in full; the model's "
            f"are {_shorten(sorted(ours))}."
        )


def _check_complete(
    *,
    absent: Sequence[str],
    unused: Sequence[str],
    wrong: Mapping[str, tuple[Shape, Shape]],
) -> None:
    if absent:
        raise InputError(
            "the checkpoint does not hold all of the model. Parameters it lacks: "
            f"{_shorten(absent)}. Tensors the model has no place for: "
            f"{_shorten(unused)}. Name in reinit what is to be drawn new."
        )
    if wrong:
        shown = [
            f"{path}: {list(was)} in the checkpoint, {list(now)} in the model"
            for path, (was, now) in wrong.items()
        ]
        raise InputError(
            f"shapes differ: {_shorten(shown)}. Load with the checkpoint's own "
            "config.json, or name in reinit what is to be drawn new."
        )


def _shorten(names: Sequence[str], most: int = 20) -> list[str]:
    rest = len(names) - most
    return [*names[:most], f"… and {rest} more"] if rest > 0 else list(names)
