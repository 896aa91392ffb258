# SPDX-License-Identifier: Apache-2.0
"""Which modules are adapted: names as PEFT takes them, or regexes over paths."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from jft.params.adapters.adapter import Adapter, Product
from jft.types import InputError

ALL_LINEAR = "all-linear"

T = TypeVar("T")
# target -> value; of pairs the first that names a module rules it
Patterns: TypeAlias = Mapping[str, T] | tuple[tuple[str, T], ...]


def matches(target: str, path: str) -> bool:
    r"""Whether a target names a module: all of its path, or its end from a "/" on.

    So PEFT's names work as they are: a dot of ``attention.output.dense`` matches the
    slash of the path.

    >>> matches("query", "bert/encoder/layer/0/attention/self/query")
    True
    >>> matches(r"bert/encoder/layer/[01]/.*/query", "bert/encoder/layer/2/self/query")
    False
    """
    return re.fullmatch(rf"(?:.+/)?(?:{target})", path) is not None


def choose_targets(
    targets: Sequence[str],
    products: Mapping[str, Product],
    *,
    head: Collection[str],
    modules: Collection[str],
) -> dict[str, Product]:
    """Pick the modules to adapt.

    Args:
      targets: each a name or regex, see `matches`, or ``"all-linear"``: every product
        with a matrix but the head's.
      products: what can be adapted.
      head: the modules that move as a whole: the head, and what was drawn new.
      modules: all modules that have parameters, to tell a wrong name from one that is
        no product.

    Returns:
      The chosen of ``products``.

    Raises:
      InputError: if a target is no regex, picks nothing, or what moves as a whole.
    """
    products = {
        p: x for p, x in products.items() if x.kind in ("dense", "embed", "conv")
    }
    chosen: set[str] = set()
    for target in targets:
        found = _find(target, products, head)
        if not found:
            raise InputError(_nothing_found(target, products, modules))
        if twice := sorted(found & set(head)):
            raise InputError(
                f"the target {target!r} names {twice[0]}, which moves as a whole (the "
                "head, what was drawn new, or also_train); name other modules."
            )
        chosen |= found
    if not chosen:
        raise InputError(
            f"targets is {list(targets)}, so nothing is adapted; name modules such as "
            f'{_last_names(products)[:3]}, or "{ALL_LINEAR}".'
        )
    return {path: product for path, product in products.items() if path in chosen}


@dataclass(frozen=True, kw_only=True)
class Targeted(Adapter):
    """A method whose modules are named.

    Attributes:
      targets: see `choose_targets`.
    """

    targets: tuple[str, ...]

    def choose(
        self,
        products: Mapping[str, Product],
        *,
        head: Collection[str],
        modules: Collection[str],
    ) -> dict[str, Product]:
        """Pick the targets."""
        return choose_targets(self.targets, products, head=head, modules=modules)


def pattern_value(patterns: Patterns[T], path: str, default: T) -> T:
    """The value of the first pattern that names the module, see `matches`.

    >>> pattern_value({"query": 4}, "layer/0/query", 8)
    4
    """
    pairs = patterns.items() if isinstance(patterns, Mapping) else patterns
    return next((value for name, value in pairs if matches(name, path)), default)


def check_patterns(what: str, patterns: Patterns[T], adapted: Collection[str]) -> None:
    """Refuse a pattern that is no regex, or names no adapted module.

    Also two of a dict that name the same one, since its order says nothing.
    """
    names = list(dict(patterns))
    for name in names:
        _check_regex(what, name)
        if not any(matches(name, path) for path in adapted):
            raise InputError(
                f"{what} names {name!r}, which is none of the adapted modules "
                f"{_last_names(adapted)}; correct it, or add it to the targets."
            )
    for path in adapted if isinstance(patterns, Mapping) else ():
        named = [name for name in names if matches(name, path)]
        if len(named) > 1:
            raise InputError(
                f"{what} is a dict, whose order says nothing, and {named} all name "
                f"{path}; give a list of (name, value), the first of which wins."
            )


def check_kind(
    what: str, path: str, product: Product, kinds: Collection[str] = ("dense",)
) -> None:
    """Refuse a module that a method is not made for."""
    names = {"dense": "product", "embed": "embedding", "conv": "convolution"}
    if product.kind not in kinds:
        raise InputError(
            f"{path} is of the kind {names[product.kind]}, and {what} is for "
            f"{' and '.join(f'{names[kind]}s' for kind in kinds)} alone; leave it out "
            "of the targets."
        )


def check_also_train(rules: Sequence[str], paths: Collection[str]) -> None:
    """Refuse a rule that is no regex, or matches no parameter."""
    for rule in rules:
        _check_regex("also_train", rule)
        if not any(re.fullmatch(rule, path) for path in paths):
            raise InputError(
                f"also_train has the rule {rule!r}, which matches no parameter, such "
                f"as {min(paths)}; give regular expressions of whole paths."
            )


def _check_regex(what: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise InputError(
            f"{what} has {pattern!r}, which is no regular expression: {error}. Give "
            "names of modules, or Python regular expressions over their paths."
        ) from error


def _find(
    target: str, products: Mapping[str, Product], head: Collection[str]
) -> set[str]:
    if target == ALL_LINEAR:
        dense = {path for path, product in products.items() if product.kind == "dense"}
        return dense - set(head)
    _check_regex("targets", target)
    return {path for path in products if matches(target, path)}


def _nothing_found(
    target: str, products: Mapping[str, Product], modules: Collection[str]
) -> str:
    known = f"The model's products are {_last_names(products)}"
    others = sorted(path for path in modules if matches(target, path))
    if others:
        return (
            f"the target {target!r} is {others[0]}, which is no product with a matrix, "
            f"embedding or convolution, so it has nothing to adapt. {known}."
        )
    return f"the target {target!r} names no module. {known}; paths use slashes."


def _last_names(paths: Collection[str]) -> list[str]:
    return sorted({path.rpartition("/")[2] for path in paths})
