# SPDX-License-Identifier: Apache-2.0
"""Several adapters over one base: switched, added up, or each for rows of its own.

several = jft.gather(base, {"law": law, "news": "folder/of/an/adapter"})
model = several.use("law")                                # train, evaluate, save it
model = several.weighted_sum({"law": 0.7, "news": 0.3})   # one adapter again
model = several.mixed()                                   # each row says which
batch = {**batch, "adapter_ids": several.ids(["news", "law", None])}
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jft.adapted import products_of, with_adapter, without_adapter
from jft.adapter_folder import read_over
from jft.params import ADAPTER_FILES, adapters, find_folder
from jft.params.quantised import flatten_whole, kind_of
from jft.paths import flatten, unflatten
from jft.pretrained import Pretrained
from jft.types import InputError


class AdapterSet(NamedTuple):
    """A base, and models that are the base with an adapter each.

    The models hold the base's own arrays, but for those that an adapter trained beside
    it, such as a head.
    """

    base: Pretrained
    models: Mapping[str, Pretrained]  # by the adapter's name

    def use(self, name: str) -> Pretrained:
        """The model with one of the adapters.

        Models whose adapters have the same settings share their functions, so that
        what was compiled for one serves the other.

        Raises:
          InputError: if there is no adapter of that name.
        """
        self._check_names([name])
        return self.models[name]

    def add(self, name: str, model: Pretrained | str | Path) -> "AdapterSet":
        """Return the set with one more adapter, see `gather`.

        Raises:
          InputError: if there is one of that name, or it does not fit the base.
        """
        if name in self.models:
            raise InputError(
                f"there is an adapter {name!r} already; known are "
                f"{sorted(self.models)}. Choose another name, or gather the models "
                "anew to replace it."
            )
        return gather(self.base, {**self.models, name: model})

    def ids(self, names: Iterable[str | None]) -> np.ndarray:
        """What rows of a batch name their adapters by, for the model of ``mixed``.

        Args:
          names: of each row; None is the base alone.

        Returns:
          The field ``adapter_ids [B]`` int32.

        Raises:
          InputError: if there is no adapter of that name.
        """
        names = list(names)
        self._check_names([name for name in names if name is not None])
        number = {name: i for i, name in enumerate(self.models)}
        return np.asarray(
            [adapters.BASE if name is None else number[name] for name in names],
            np.int32,
        )

    def weighted_sum(self, weights: Mapping[str, float]) -> Pretrained:
        """Make one adapter of several, which changes the base by the weighted sum.

        Of LoRA the factors stand side by side, ``sum_i w_i s_i A_i B_i``, so its rank
        is the sum of theirs; of (IA)³ the factors are ``1 + sum_i w_i (l_i - 1)``.
        What moved of the base is ``b + sum_i w_i (b_i - b)``. Of a head, and of what
        else was drawn new, it is the mean ``sum_i w_i h_i / sum_i w_i``.

        Args:
          weights: by name of the adapter; any numbers.

        Returns:
          The model with that adapter; it trains, is saved and folded like any.

        Raises:
          InputError: if there is no adapter of a name, the methods differ or have no
            sum (DoRA has none), or the heads answer with different classes.
        """
        if not weights:
            raise InputError(
                f"weights is empty; give a weight to some of {sorted(self.models)}."
            )
        self._check_names(weights)
        if bad := {n: w for n, w in weights.items() if not math.isfinite(w)}:
            raise InputError(f"weights has {bad}; expected finite numbers.")
        chosen = {name: self.models[name] for name in weights}
        if len({model.class_names for model in chosen.values()}) > 1:
            told = {name: list(model.class_names) for name, model in chosen.items()}
            raise InputError(
                f"heads of different classes have no sum: {told}; give adapters whose "
                "heads answer alike, or take the model of mixed(), row by row."
            )
        terms = {
            name: adapters.Term(float(weights[name]), _member(model))
            for name, model in chosen.items()
        }
        adapter, leaves_of = adapters.sum_adapters(terms)
        flat = flatten(self.base.params)
        own = adapters.sum_own(list(terms.values()), flat, new=_drawn_new(self.base))
        params = unflatten(flat | own)
        plain = without_adapter(next(iter(chosen.values())), params)
        return with_adapter(plain, adapter, adapters.with_adapters(params, leaves_of))

    def mixed(self) -> Pretrained:
        """Make the model of batches whose rows have different adapters, to serve with.

        Its batches have the field ``adapter_ids [B]``, see `ids`; an id that no adapter
        has answers NaN. Which rows have which adapter may change from call to call, the
        program stays. The base's products run once for all rows. Adapters may be of
        different methods, and of ranks that differ: they are padded to the largest.

        A head of fewer classes than another's scores minus infinity for those it has
        not; ``class_names`` are empty where the adapters' differ.

        Returns:
          The model, whose adapter is `jft.params.adapters.Mixed`; nothing is dropped
          out, and it is not to be saved or folded.

        Raises:
          InputError: for a method that cannot be mixed, or a module that answers once
            for all rows, such as a table of distances.
        """
        leaves_of = adapters.mix(
            {name: _member(model) for name, model in self.models.items()},
            flatten_whole(self.base.params),
            products_of(self.base),
        )
        every = [self.base, *self.models.values()]
        plain = max(every, key=lambda model: len(model.class_names))  # the widest head
        if plain.adapter is not None:
            plain = without_adapter(plain, adapters.without_adapters(plain.params))
        _check_rows(plain, leaves_of)
        lists = {model.class_names for model in self.models.values()}
        return with_adapter(
            plain._replace(class_names=lists.pop() if len(lists) == 1 else ()),
            adapters.Mixed(names=tuple(self.models)),
            adapters.with_adapters(self.base.params, leaves_of),
        )

    def _check_names(self, names: Iterable[str]) -> None:
        if unknown := sorted(set(names) - self.models.keys()):
            raise InputError(
                f"there is no adapter {', '.join(map(repr, unknown))}; known are "
                f"{sorted(self.models)}."
            )


def gather(
    base: Pretrained, models: Mapping[str, Pretrained | str | Path]
) -> AdapterSet:
    """Put several adapters over one base, whose arrays they then share.

    Args:
      base: without an adapter.
      models: by a name of the adapter: a model that ``jft.adapt`` or
        ``jft.load_adapter`` returned (with the parameters to use: ``model._replace(
        params=state.params)`` after training), or a folder or Hub id that
        ``jft.load_adapter`` reads; for a revision, call that.

    Raises:
      InputError: if a model is no adapter over this base: it has other parameters, or
        other numbers in those that its adapter leaves alone.
    """
    if base.adapter is not None:
        raise InputError(
            f"the base has the adapter {base.adapter}; gather over the model without "
            "it, and give this one a name of its own."
        )
    if not models:
        raise InputError("no adapters were given; give at least one, by its name.")
    digest = adapters.make_base_digest(
        flatten_whole(base.params)
    )  # hashes once, if at all
    gathered: dict[str, Pretrained] = {}
    for name, given in models.items():
        if isinstance(given, (str, Path)):
            folder = find_folder(given, files=ADAPTER_FILES)
            given = read_over(folder, base, digest)
        model = _over(base, name, given)
        for other in gathered.values():
            if other.module == model.module:  # what is compiled for one serves both
                model = model._replace(
                    module=other.module,
                    apply_fn=other.apply_fn,
                    prefix_fn=other.prefix_fn,
                )
                break
        gathered[name] = model
    return AdapterSet(base, gathered)


def _over(base: Pretrained, name: str, model: Pretrained) -> Pretrained:
    """The model with the base's own arrays, where its adapter leaves them alone."""
    if model.adapter is None or isinstance(model.adapter, adapters.Mixed):
        raise InputError(
            f"the model {name!r} has {model.adapter or 'no adapter'}; expected one "
            "that jft.adapt or jft.load_adapter returned."
        )
    _check_alike_kept(base, name, model)
    flat, theirs = (flatten(adapters.without_adapters(x.params)) for x in (base, model))
    kinds = [(x.family.model_type, x.task) for x in (base, model)]
    if kinds[0] != kinds[1] or set(flat) != set(theirs):
        raise InputError(
            f"the model {name!r} has another base: a {model.family.model_type} for "
            f"{model.task!r}, and here is a {base.family.model_type} for "
            f"{base.task!r}; parameters that only one has are "
            f"{sorted(set(flat) ^ set(theirs))[:3]}. Give a model over this base."
        )
    own = _member(model).own
    for path, leaf in flat.items():
        resizes = path in own and base.family.is_head(path, base.task)
        if theirs[path].shape != leaf.shape and not resizes:
            raise InputError(
                f"the model {name!r} has another base: {path} is "
                f"{list(theirs[path].shape)} there and {list(leaf.shape)} here."
            )
        if path not in own and not _equal(leaf, theirs[path]):
            raise InputError(
                f"the model {name!r} has another base: {path}, which its adapter "
                "leaves alone, has other numbers. Load the base that it was trained "
                "over."
            )
    own = {path: jnp.asarray(x, flat[path].dtype) for path, x in own.items()}
    params = adapters.with_adapters(
        unflatten(flat | own),
        adapters.adapters_of(model.params),
        adapters.shared_of(model.params),
    )
    return model._replace(params=params)


def _check_alike_kept(base: Pretrained, name: str, model: Pretrained) -> None:
    """Refuse a matrix that one has in full and the other in codes, or in others."""
    ours, theirs = (
        {path: kind_of(leaf) for path, leaf in flatten_whole(x.params).items()}
        for x in (base, model)
    )
    for path in sorted(ours.keys() & theirs.keys()):
        here, there = (kinds[path] or "in full" for kinds in (ours, theirs))
        if here != there:
            raise InputError(
                f"the model {name!r} has its base kept in another way: {path} is "
                f"{there} there and {here} here. Write the adapter with "
                "jft.save_adapter and give the folder, which is read over its base "
                "however that is kept; or load this base as that one was, with the "
                "same quantize."
            )


def _member(model: Pretrained) -> adapters.Member:
    assert model.adapter is not None
    return adapters.member_of(model.params, model.adapter)


def _equal(one: Any, other: Any) -> bool:
    """Whether two arrays hold the same numbers, in the narrower of their dtypes."""
    if one is other:
        return True
    narrow = min(one.dtype, other.dtype, key=lambda dtype: jnp.dtype(dtype).itemsize)
    return bool(jnp.array_equal(jnp.asarray(one, narrow), jnp.asarray(other, narrow)))


def _drawn_new(base: Pretrained) -> set[str]:
    """What of the base has no numbers worth a difference: heads, and what is new."""
    new = set(base.report.new) if base.report.used else set()
    return new | adapters.head_paths(base.family, base.task, flatten(base.params))


def _check_rows(model: Pretrained, leaves_of: Mapping[str, Any]) -> None:
    """Refuse a module that does not answer row by row: more rows, more answers."""
    config = model.family.config_from_dict(model.config)
    example = model.family.example_batch(config, model.task)

    def calls(num_rows: int) -> dict[str, list[int]]:
        batch = {
            name: jax.ShapeDtypeStruct((num_rows, *x.shape[1:]), x.dtype)
            for name, x in example.items()
        }
        return adapters.rows_of_calls(model.module, model.params, batch)

    two, three = calls(2), calls(3)
    for module in leaves_of:
        counts = zip(two.get(module, [1]), three.get(module, [1]), strict=True)
        if any(3 * n != 2 * m for n, m in counts):
            raise InputError(
                f"{module} is adapted and does not answer row by row: for 3 rows it is "
                f"called with {three.get(module, 'nothing')} vectors, such as those of "
                "distances, which all rows share. Rows cannot have their own; use its "
                "adapter alone."
            )
