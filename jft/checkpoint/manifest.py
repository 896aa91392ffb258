# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint says about itself, and how two such statements differ."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from jft import paths
from jft.types import InputError

SCHEMA_VERSION = 2  # 1: another layout of the optimizer state


class CheckpointError(InputError):
    """A checkpoint cannot be written, is damaged, or belongs to something else."""


class CorruptError(CheckpointError):
    """What is on the disk is not what was saved: an older step may still be good."""


class Leaf(NamedTuple):
    """Shape, dtype and digest of one saved array."""

    shape: tuple[int, ...]
    dtype: str
    digest: str  # hexadecimal SHA-256 of the bytes in C order


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The identity of a run, and what one of its checkpoints holds.

    The caller fills the first half; it must be the same when the run resumes. The
    second half is filled when a step is saved.
    """

    base: str  # where the frozen leaves come from; "scratch" for nowhere
    base_digest: str  # tree_digest of the leaves that are read again from the base
    labels: Mapping[str, str]  # parameter path -> label
    config_digest: str  # json_digest of whatever must not change between resumes
    schema_version: int = SCHEMA_VERSION

    step: int = 0
    open_groups: tuple[str, ...] = ()  # the groups that moved when it was saved
    best_value: float | None = None  # the validation metric at this step, if known
    leaves: Mapping[str, Leaf] = field(default_factory=dict)  # by path

    def to_json(self) -> str:
        """Return the manifest as sorted, indented JSON."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Read what ``to_json`` wrote.

        Raises:
          CorruptError: if it is no manifest.
          CheckpointError: if it has another schema version.
        """
        try:
            values = json.loads(text)
            version = values["schema_version"]
        except (ValueError, TypeError, KeyError) as error:
            raise CorruptError(f"this is no manifest: {error!r}") from error
        if version != SCHEMA_VERSION:
            raise CheckpointError(
                f"the checkpoint has schema version {version!r}, this jft reads "
                f"{SCHEMA_VERSION}: resume it with the jft that wrote it."
            )
        try:
            leaves = {
                path: Leaf(tuple(shape), dtype, digest)
                for path, (shape, dtype, digest) in values.pop("leaves").items()
            }
            values["open_groups"] = tuple(values["open_groups"])
            return cls(leaves=leaves, **values)
        except (ValueError, TypeError, KeyError) as error:
            raise CorruptError(f"this is no manifest: {error!r}") from error


def differences(expect: Manifest, found: Manifest) -> list[str]:
    """Say in sentences why ``found`` cannot continue the run ``expect`` describes.

    Compared are the digest of the base (not its location: folders move), the
    labels and the digest of the configuration.

    >>> one = Manifest(base="a", base_digest="1", labels={"w": "x"}, config_digest="")
    >>> differences(one, one)
    []
    """
    reasons: list[str] = []
    if expect.base_digest != found.base_digest:
        reasons.append(
            f"the base differs: this run's base {expect.base!r} has digest "
            f"{expect.base_digest[:12]!r}, the checkpoint was trained on "
            f"{found.base!r} with digest {found.base_digest[:12]!r}"
        )
    if expect.labels != found.labels:
        reasons.append(_label_differences(expect.labels, found.labels))
    if expect.config_digest != found.config_digest:
        reasons.append(
            f"the configuration differs: digest {expect.config_digest[:12]!r} here, "
            f"{found.config_digest[:12]!r} in the checkpoint"
        )
    return reasons


def leaf_differences(abstract: Mapping[str, Any], leaves: Mapping[str, Leaf]) -> str:
    """Say which leaves are missing, extra, or of another shape or dtype; "" if none.

    Args:
      abstract: path -> anything with ``shape`` and ``dtype``, as the run needs it.
      leaves: path -> what the checkpoint holds.
    """
    missing = sorted(abstract.keys() - leaves.keys())
    extra = sorted(leaves.keys() - abstract.keys())
    wrong = [
        f"{path}: needs {want.dtype}{list(want.shape)}, "
        f"checkpoint has {leaves[path].dtype}{list(leaves[path].shape)}"
        for path, want in sorted(abstract.items())
        if path in leaves and (tuple(want.shape), str(want.dtype)) != leaves[path][:2]
    ]
    parts = []
    if missing or extra:
        parts.append(f"leaves missing in it: {missing}; leaves not asked for: {extra}")
    if wrong:
        parts.append("leaves of another shape or dtype: " + "; ".join(wrong))
    return "; ".join(parts)


def leaf_digest(array: np.ndarray) -> str:
    """Return the hexadecimal SHA-256 of an array's bytes in C order.

    >>> leaf_digest(np.zeros(2, np.uint8))[:12]
    '96a296d224f2'
    """
    flat = np.ascontiguousarray(array).reshape(-1)
    return hashlib.sha256(flat.view(np.uint8).data).hexdigest()


def tree_digest(tree: Any) -> str:
    """Return one SHA-256 over every leaf's path, shape, dtype and bytes.

    ``None`` holes do not count, so the frozen part of a partition and the same
    leaves in any other tree agree. Leaves are fetched one at a time.

    >>> tree_digest({"a": np.ones(2), "b": None}) == tree_digest({"a": np.ones(2)})
    True
    """
    digest = hashlib.sha256()
    for path, leaf in sorted(paths.flatten(tree).items()):
        array = np.asarray(jax.device_get(leaf))
        line = f"{path} {array.dtype}{list(array.shape)} {leaf_digest(array)}\n"
        digest.update(line.encode())
    return digest.hexdigest()


def json_digest(value: Any) -> str:
    """Return the SHA-256 of a value's sorted JSON.

    >>> json_digest({"a": 1, "b": 2}) == json_digest({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _label_differences(expect: Mapping[str, str], found: Mapping[str, str]) -> str:
    """List the parameters whose label differs, in both directions."""
    changed = [
        f"{path} is {expect.get(path)!r} here, {found.get(path)!r} in the checkpoint"
        for path in sorted(expect.keys() | found.keys())
        if expect.get(path) != found.get(path)
    ]
    return "the labels differ: " + "; ".join(paths.shorten(changed))
