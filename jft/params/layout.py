# SPDX-License-Identifier: Apache-2.0
"""How a checkpoint's tensors differ from our parameters, leaf by leaf.

Names: "." becomes "/", and ``weight`` becomes what flax calls it. Axes: torch keeps
the output axis of a product first, flax last. Everything else is kept as it is:
products that are fused in the checkpoint (queries, keys and values) are fused here.
"""

import re

import numpy as np

from jft.models import Family

# our leaf name -> the checkpoint's; a leaf named otherwise keeps its name
NAMES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}

# rank of a kernel -> axes from checkpoint to ours
KERNEL_AXES = {
    2: (1, 0),  # linear: out, in -> in, out
    3: (2, 1, 0),  # 1-d convolution: out, in, width -> width, in, out
    4: (2, 3, 1, 0),  # 2-d convolution: OIHW -> HWIO
}


def to_key(path: str) -> str:
    """Return the checkpoint's key of a parameter.

    >>> to_key("vit/encoder/layer/0/output/dense/kernel")
    'vit.encoder.layer.0.output.dense.weight'
    """
    *modules, leaf = path.split("/")
    return ".".join([*modules, NAMES.get(leaf, leaf)])


def from_tensor(path: str, tensor: np.ndarray, family: Family) -> np.ndarray:
    """Return a view of the checkpoint's tensor with our axes.

    A kernel whose rank has no rule is returned as it is; its shape then tells.

    >>> from jft.models import get_family
    >>> from_tensor("classifier/kernel", np.zeros((10, 64)), get_family("vit")).shape
    (64, 10)
    """
    return from_torch(tensor) if _is_turned(path, family) else tensor


def to_tensor(path: str, array: np.ndarray, family: Family) -> np.ndarray:
    """Return the array with the checkpoint's axes; undoes ``from_tensor``.

    >>> from jft.models import get_family
    >>> family = get_family("vit")
    >>> to_tensor("projection/kernel", np.zeros((16, 16, 3, 768)), family).shape
    (768, 3, 16, 16)
    """
    if _is_turned(path, family):
        return to_torch(array)
    return np.ascontiguousarray(array)


def from_torch(tensor: np.ndarray) -> np.ndarray:
    """Return a view of torch's matrix or kernel with our axes."""
    axes = KERNEL_AXES.get(tensor.ndim)
    return tensor if axes is None else tensor.transpose(axes)


def to_torch(array: np.ndarray) -> np.ndarray:
    """Return the matrix or kernel with torch's axes; undoes ``from_torch``."""
    axes = KERNEL_AXES.get(array.ndim)
    inverse = None if axes is None else np.argsort(axes)
    return np.ascontiguousarray(array if inverse is None else array.transpose(inverse))


def _is_turned(path: str, family: Family) -> bool:
    """Whether the checkpoint keeps the parameter's axes in torch's order."""
    return path.rpartition("/")[2] == "kernel" and not re.fullmatch(family.conv1d, path)
