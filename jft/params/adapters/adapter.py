# SPDX-License-Identifier: Apache-2.0
"""What every method of parameter-efficient fine-tuning says of itself.

An adapter's own parameters are a subtree beside the model's:
``{"bert": …, "adapters": {"bert": … {"query": {"lora_A": …, "lora_B": …}}}}``. Under
``adapters`` stands the path of the module that is adapted, so the base's paths and
numbers stay as they are. What all adapted modules share stands right under it.
"""

import abc
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np

from jft.params.adapters.peft_names import Names
from jft.params.layout import from_torch, to_torch
from jft.types import Params

SUBTREE = "adapters"  # the key of the adapters' parameters, beside the model's

Leaves = dict[str, Any]  # of one module: name -> array
LeavesOf = Mapping[str, Leaves]  # module -> its leaves
Forward = Callable[..., Any]  # of batch, LeavesOf and options


class Stored(NamedTuple):
    """What a file of an adapter's tensors holds, with our names and axes."""

    leaves_of: dict[str, Leaves]  # the adapters' parameters, by module
    shared: Leaves  # what all modules share
    trained: dict[str, np.ndarray]  # parameters of the base, by path


class Product(NamedTuple):
    """A module that an adapter can reach: a product, a look-up, or a convolution.

    Or a place that only some methods take: an attention, or what embeds images.
    """

    kind: str  # "dense", "embed" or "conv"; "attention" or "images"
    # of a dense [in, out], an embedding [V, D], a convolution [..., in / groups, out],
    # keys [G, K], embedded images [L, D]
    shape: tuple[int, ...]
    scores: bool = False  # an embedding that also scores the outputs: tied words
    groups: int = 1  # of a convolution's channels
    ends: str | None = None  # of a block: "attention" or "mlp", if it is its last


class Call(NamedTuple):
    """One use of an adapted module in a forward."""

    run: Callable[[Any], jax.Array]  # the module as the model calls it
    # [..., in], a convolution's [B, ..., in]; an embedding's ids [...]; of an
    # attention what it looks at
    x: Any
    base: Callable[[str], Any]  # a parameter of the module by name; None: has it not
    dropout_words: Callable[[], jax.Array | None]  # see `jft.models.dropout.drop`
    # a convolution's: the same over all channels, of x with another kernel, no bias
    convolve: Callable[[jax.Array, jax.Array], jax.Array]
    adapter_ids: jax.Array | None = None  # [B]; which of several answers each row
    nth: int = 0  # earlier uses of the module in this forward


@dataclass(frozen=True, kw_only=True)
class Adapter(abc.ABC):
    """A method with its settings; static, so closed over and never carried.

    Attributes:
      also_train: regexes of whole paths of the base's parameters that move too, and
        are kept with the adapter: PEFT's ``modules_to_save``. None is the head of a
        task that has its own, such as a classifier.
    """

    # its name in the file of an adapter, PEFT's where PEFT has it
    peft_type: ClassVar[str]
    foldable: ClassVar[bool] = True  # False: no base could hold what it has learned
    by_row: ClassVar[bool] = False  # True: each row of a batch names its own
    mixes: ClassVar[bool] = False  # True: rows can have their own, see `parts`
    scales_bias: ClassVar[bool] = False  # True: its `parts` multiply the bias too
    packs: ClassVar[bool] = True  # False: needs each text in a row of its own
    still: ClassVar[tuple[str, ...]] = ()  # names of its leaves that never move
    # of what all modules share, the axis of which each reads the first as it needs
    read_in_part: ClassVar[Mapping[str, int]] = {}
    # in PEFT's file: the options that it reads, the ends of its leaves' names, the
    # whole names of what modules share; and whether norms have a name for being tuned
    known: ClassVar[tuple[str, ...]] = ()
    endings: ClassVar[Mapping[str, str]] = {}
    shared_names: ClassVar[Mapping[str, str]] = {}
    tunes_norms: ClassVar[bool] = False
    # kinds of places that it takes without being told, see `Product`
    kinds: ClassVar[tuple[str, ...]] = ()
    also_train: tuple[str, ...] | None = None

    def choose(
        self,
        products: Mapping[str, Product],
        *,
        head: Collection[str],
        modules: Collection[str],
    ) -> dict[str, Product]:
        """Pick the modules to adapt: those of its kinds, or see `choose_targets`."""
        del head, modules
        return {p: x for p, x in products.items() if x.kind in self.kinds}

    @abc.abstractmethod
    def init(
        self, products: Mapping[str, Product], params: Params, key: jax.Array
    ) -> dict[str, Leaves]:
        """Draw the adapters' parameters: module -> leaves; ``{}`` where none is new."""

    def shared_shapes(
        self, products: Mapping[str, Product]
    ) -> dict[str, tuple[int, ...]]:
        """Of what all adapted modules share: name -> shape."""
        del products
        return {}

    def init_shared(self, products: Mapping[str, Product], key: jax.Array) -> Leaves:
        """Draw what all adapted modules share; ``{}`` where they share nothing."""
        del products, key
        return {}

    def shapes(self, path: str, product: Product) -> dict[str, tuple[int, ...]]:
        """A module's own leaves: name -> shape; refuses what it is not made for."""
        del path, product
        return {}

    @abc.abstractmethod
    def forward(self, path: str, call: Call, leaves: Leaves) -> jax.Array:
        """What an adapted module answers; the shared leaves are among its own."""

    @abc.abstractmethod
    def fold(self, path: str, base: Leaves, leaves: Leaves) -> Leaves:
        """Return the module's parameters with the adapter in them, as numpy arrays."""

    def around(
        self, run: Forward, module: Any, batch: Any, own: LeavesOf, **options: Any
    ) -> Any:
        """The forward of a whole model.

        Args:
          run: the forward, ``run(batch, own, **options)``, that asks `forward` for what
            the modules of ``own`` answer.
          module: the family's.
          batch: the model's.
          own: the adapter's parameters, module -> leaves.
          options: further arguments of ``flax.linen.Module.apply``; ``cached`` of them
            says whether an earlier call has written a cache.
        """
        del module, options["cached"]
        return run(batch, own, **options)

    def most_tokens(self, most: int) -> int:
        """How many tokens a text may have, of a model with ``most`` positions."""
        return most

    def read_by(self, processor: Any) -> "Adapter":
        """The settings with what the model's tokenizer makes of them."""
        del processor
        return self

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

    @property
    def reads_matrix(self) -> bool:
        """Whether `parts` depends on the base's matrix."""
        return False

    def parts(self, path: str, base: Leaves, leaves: Leaves) -> dict[str, np.ndarray]:
        """What it does to a product, by the names of `jft.params.adapters.mixed`.

        Args:
          path: of the module.
          base: the module's parameters, with the matrix where ``reads_matrix``.
          leaves: the adapter's, wide.
        """
        raise AssertionError(f"{path} is mixed, and {type(self).__name__} has no parts")

    def peft_options(self, adapted: Collection[str], names: Names) -> dict[str, Any]:
        """Its own options of PEFT's file: the values of ``known``.

        Args:
          adapted: the modules that have an adapter.
          names: the model's.
        """
        del adapted, names
        return {name: getattr(self, name) for name in self.known}

    @classmethod
    def from_peft(
        cls, config: Mapping[str, Any], stored: Stored, names: Names
    ) -> "Adapter":
        """Undo `peft_options`; which modules are adapted the tensors tell."""
        del stored, names
        return cls(**{name: config[name] for name in cls.known if name in config})

    def to_torch(self, path: str, leaves: Leaves) -> dict[str, np.ndarray]:
        """A module's leaves with the names of ``endings`` and PEFT's axes."""
        del path
        return {name: torch_axes(wide(leaf)) for name, leaf in leaves.items()}

    @classmethod
    def from_torch(cls, name: str, tensor: np.ndarray) -> np.ndarray:
        """Undo `to_torch`, of one leaf."""
        del name
        return np.ascontiguousarray(from_torch(tensor))


def torch_axes(array: np.ndarray) -> np.ndarray:
    """Vectors stay; a matrix or kernel gets torch's axes."""
    return array if array.ndim == 1 else to_torch(array)


def key_of(key: jax.Array, path: str) -> jax.Array:
    """A module's own key, which depends on nothing but the key and the path."""
    return jax.random.fold_in(key, zlib.crc32(path.encode()))


def wide(x: Any) -> np.ndarray:
    """An array on the host in float32 at least, to fold in."""
    array = np.asarray(x)
    return array.astype(np.float64 if array.dtype == np.float64 else np.float32)
