# SPDX-License-Identifier: Apache-2.0
"""How a checkpoint's tensors differ from our parameters, leaf by leaf.

Names: "." becomes "/", and ``weight`` becomes what flax calls it. Axes: torch keeps
the output axis of a product first, flax last. Everything else is kept as it is:
products that are fused in the checkpoint (queries, keys and values) are fused here.
What differs between checkpoints of one family is in `jft.params.keys`.
"""

import re

import numpy as np

# our leaf name -> the checkpoint's; a leaf named otherwise keeps its name
NAMES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}

# rank of a kernel -> axes from checkpoint to ours
KERNEL_AXES = {
    2: (1, 0),  # linear: out, in -> in, out
    3: (2, 1, 0),  # 1-d convolution: out, in, width -> width, in, out
    4: (2, 3, 1, 0),  # 2-d convolution: OIHW -> HWIO
}


# GPT-2's products are Conv1D modules, which keep the input axis first, as flax does
CONV1D = re.compile(r"(?:.*/)?h/\d+/(?:attn|mlp)/(?:c_attn|c_proj|c_fc)/kernel")


def to_key(path: str) -> str:
    """Return the checkpoint's key of a parameter.

    >>> to_key("vit/encoder/layer/0/output/dense/kernel")
    'vit.encoder.layer.0.output.dense.weight'
    """
    *modules, leaf = path.split("/")
    return ".".join([*modules, NAMES.get(leaf, leaf)])


def from_tensor(path: str, tensor: np.ndarray) -> np.ndarray:
    """Return a view of the checkpoint's tensor with our axes.

    A kernel whose rank has no rule is returned as it is; its shape then tells.

    >>> from_tensor("classifier/kernel", np.zeros((10, 64))).shape
    (64, 10)
    """
    axes = _axes(path, tensor)
    return tensor if axes is None else tensor.transpose(axes)


def to_tensor(path: str, array: np.ndarray) -> np.ndarray:
    """Return the array with the checkpoint's axes; undoes ``from_tensor``.

    >>> to_tensor("projection/kernel", np.zeros((16, 16, 3, 768))).shape
    (768, 3, 16, 16)
    """
    axes = _axes(path, array)
    inverse = None if axes is None else np.argsort(axes)
    return np.ascontiguousarray(array if inverse is None else array.transpose(inverse))


def _axes(path: str, array: np.ndarray) -> tuple[int, ...] | None:
    is_kernel = path.rpartition("/")[2] == "kernel" and not CONV1D.fullmatch(path)
    return KERNEL_AXES.get(array.ndim) if is_kernel else None
