# SPDX-License-Identifier: Apache-2.0
"""Put a checkpoint's values into a model's tree, and say what went where."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jft.params.init import matches_any
from jft.paths import flatten, map_with_path, shorten
from jft.types import InputError, Params

Shape = tuple[int, ...]
MOST_NAMED = 20  # paths in a message


class MergeReport(NamedTuple):
    """Both sides of a merge, sorted.

    The model's paths are ``used`` and ``new``; the checkpoint's are ``used``,
    ``unused`` and the keys of ``mismatched``, which are ``new`` in the model or grew.
    """

    used: tuple[str, ...]
    new: tuple[str, ...]
    unused: tuple[str, ...]
    mismatched: Mapping[str, tuple[Shape, Shape]]  # path -> (checkpoint's, model's)

    def __str__(self) -> str:
        """List what was not simply used, one path a line."""
        lines = [f"{len(self.used)} parameters from the checkpoint"]
        lines += [f"  drawn new   {path}{self._was(path)}" for path in self.new]
        grown = [path for path in self.used if path in self.mismatched]
        lines += [f"  made larger {path}{self._was(path)}" for path in grown]
        lines += [f"  not used    {path}" for path in self.unused]
        return "\n".join(lines)

    def _was(self, path: str) -> str:
        if path not in self.mismatched:
            return ""
        was, now = self.mismatched[path]
        return f" {list(now)}, was {list(was)}"


def merge(
    loaded: Params,
    init: Params,
    *,
    reinit: Sequence[str] = (),
    optional: Sequence[str] = (),
    grow: Sequence[str] = (),
    place: Callable[[str, np.ndarray], Any] | None = None,
) -> tuple[Params, MergeReport]:
    """Take each of the model's parameters from the checkpoint, or new where asked.

    Leaves are read one at a time, the largest first, so that little more than the
    result is ever in memory.

    Args:
      loaded: the checkpoint's values at the model's paths, as ``load_pretrained``
        returns them; cast to the dtypes of ``init``.
      init: the model's parameters; leaves that no rule matches are read for their
        shape and dtype only and may be ``jax.ShapeDtypeStruct``.
      reinit: regexes of the paths to keep from ``init`` whatever the checkpoint
        holds; each must match a path in full.
      optional: regexes of the paths to keep from ``init`` where the checkpoint lacks
        them.
      grow: regexes of the paths that may be longer in the model along one axis: the
        checkpoint's values come first, those of ``init`` fill the rest.
      place: ``(path, array) -> leaf``, such as a copy to a device; None returns
        numpy arrays.

    Returns:
      The parameters, in the structure of ``init``, and the report.

    Raises:
      InputError: if a leaf that no rule covers is absent from the checkpoint or has
        another shape there, or a regex of ``reinit`` matches nothing.

    Example:
      >>> old, new = {"w": np.ones(2), "b": np.ones(1)}, {"w": np.zeros(2)}
      >>> params, report = merge(old, new)
      >>> params["w"], report.unused
      (array([1., 1.]), ('b',))
    """
    theirs, ours = flatten(loaded), flatten(init)
    _check_reinit(reinit, ours)
    new = {path for path in ours if matches_any(reinit, path)}
    new |= {p for p in ours.keys() - theirs.keys() if matches_any(optional, p)}
    wrong = {
        path: (tuple(theirs[path].shape), tuple(ours[path].shape))
        for path in sorted(theirs.keys() & ours.keys())
        if tuple(theirs[path].shape) != tuple(ours[path].shape)
    }
    grown = {p for p in wrong if matches_any(grow, p) and _fits_inside(*wrong[p])} - new
    _check_complete(
        absent=sorted(ours.keys() - theirs.keys() - new),
        unused=sorted(theirs.keys() - ours.keys()),
        wrong={p: shapes for p, shapes in wrong.items() if p not in new | grown},
    )
    used = ours.keys() - new
    report = MergeReport(
        used=tuple(sorted(used)),
        new=tuple(sorted(new)),
        unused=tuple(sorted(theirs.keys() - used - wrong.keys())),
        mismatched=wrong,
    )

    def value_of(path: str) -> Any:
        leaf = ours[path]
        if path not in used:
            assert not isinstance(leaf, jax.ShapeDtypeStruct), path
            return leaf
        value = np.asarray(theirs[path], dtype=leaf.dtype)
        if path in grown:
            whole = np.array(leaf)
            whole[tuple(map(slice, value.shape))] = value
            return whole
        return value

    place = place or (lambda path, array: array)
    largest_first = sorted(ours, key=lambda path: -int(np.prod(ours[path].shape)))
    values = {path: place(path, value_of(path)) for path in largest_first}
    return map_with_path(lambda path, _: values[path], init), report


def _fits_inside(was: Shape, now: Shape) -> bool:
    """Whether a shape became longer along exactly one axis."""
    if len(was) != len(now):
        return False
    longer = [b - a for a, b in zip(was, now, strict=True) if a != b]
    return len(longer) == 1 and longer[0] > 0


def _check_reinit(reinit: Sequence[str], ours: Mapping[str, Any]) -> None:
    idle = [rule for rule in reinit if not any(matches_any([rule], p) for p in ours)]
    if idle:
        raise InputError(
            f"reinit rules {sorted(idle)} match no parameter in full; the model's "
            f"are {shorten(sorted(ours), MOST_NAMED)}."
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
            f"{shorten(absent, MOST_NAMED)}. Tensors the model has no place for: "
            f"{shorten(unused, MOST_NAMED)}. What is to be drawn new is named in "
            "reinit (jft.load: num_classes=… for a new head)."
        )
    if wrong:
        shown = [
            f"{path}: {list(was)} in the checkpoint, {list(now)} in the model"
            for path, (was, now) in wrong.items()
        ]
        raise InputError(
            f"shapes differ: {shorten(shown, MOST_NAMED)}. Load with the checkpoint's "
            "own config.json, or say what is to be new: num_classes=… for a head, "
            "vocab_size=… for a larger vocabulary (merge: reinit, grow)."
        )
