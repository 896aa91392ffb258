# SPDX-License-Identifier: Apache-2.0
"""What every method of parameter-efficient fine-tuning says of itself.

An adapter's own parameters are a subtree beside the model's:
``{"bert": …, "adapters": {"bert": … {"query": {"lora_A": …, "lora_B": …}}}}``. Under
``adapters`` stands the path of the module that is adapted, so the base's paths and
numbers stay as they are.
"""

import abc
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np

from jft.types import Params

SUBTREE = "adapters"  # the key of the adapters' parameters, beside the model's

Leaves = dict[str, Any]  # of one module: name -> array


class Product(NamedTuple):
    """A module that an adapter can reach: a product with a matrix, or its look-up."""

    kind: str  # "dense" or "embed"
    shape: tuple[int, int]  # of a dense [in, out], of an embedding [V, D]
    scores: bool = False  # an embedding that also scores the outputs: tied words


class Call(NamedTuple):
    """One use of an adapted module in a forward."""

    run: Callable[[jax.Array], jax.Array]  # the module as the model calls it
    x: jax.Array  # dense: [..., in]; embedding: ids [...]
    base: Callable[[str], Any]  # a parameter of the module by name; None: has it not
    dropout_words: Callable[[], jax.Array | None]  # see `jft.models.dropout.drop`


@dataclass(frozen=True, kw_only=True)
class Adapter(abc.ABC):
    """A method with its settings; static, so closed over and never carried.

    Attributes:
      also_train: regexes of whole paths of the base's parameters that move too, and
        are kept with the adapter: PEFT's ``modules_to_save``. None is the head of a
        task that has its own, such as a classifier.
    """

    peft_type: ClassVar[str | None] = None  # PEFT's name; None: PEFT has it not
    foldable: ClassVar[bool] = True  # False: no base could hold what it has learned
    also_train: tuple[str, ...] | None = None

    @abc.abstractmethod
    def init(
        self, products: Mapping[str, Product], params: Params, key: jax.Array
    ) -> dict[str, Leaves]:
        """Draw the adapters' parameters: module -> leaves; ``{}`` where none is new."""

    @abc.abstractmethod
    def forward(self, path: str, call: Call, leaves: Leaves) -> jax.Array:
        """What an adapted module answers."""

    @abc.abstractmethod
    def fold(self, path: str, base: Leaves, leaves: Leaves) -> Leaves:
        """Return the module's parameters with the adapter in them, as numpy arrays."""

    def moves(
        self, path: str, adapted: Collection[str], norms: Collection[str]
    ) -> bool:
        """Whether a parameter of the base moves.

        Args:
          path: of the parameter.
          adapted: the modules that have an adapter.
          norms: the modules that are norms.
        """
        del path, adapted, norms
        return False


def key_of(key: jax.Array, path: str) -> jax.Array:
    """A module's own key, which depends on nothing but the key and the path."""
    return jax.random.fold_in(key, zlib.crc32(path.encode()))


def wide(x: Any) -> np.ndarray:
    """An array on the host in float32 at least, to fold in."""
    array = np.asarray(x)
    return array.astype(np.float64 if array.dtype == np.float64 else np.float32)
