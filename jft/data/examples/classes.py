# SPDX-License-Identifier: Apache-2.0
"""The classes of a data set: found in its labels or given, and their ids."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jft.data.examples.values import BadValueError
from jft.types import InputError

_WHOLE = re.compile(r"-?[0-9]+")
_PREFIXES = {"B": 0, "I": 1}  # any other, as of BIOES, after these


@dataclass(frozen=True, kw_only=True)
class Classes:
    """The names of classes in the order of their ids, and what labels they have."""

    names: tuple[str, ...]
    ids: dict[str, int]  # by label
    by_id: bool = False  # the labels are ids, not names

    def id(self, label: str) -> int:
        """Return the class of a label.

        Raises:
          BadValueError: if it is none; says which there are.
        """
        if label not in self.ids:
            raise BadValueError(self.unknown(label))
        return self.ids[label]

    def unknown(self, label: str, what: str = "the label") -> str:
        """Say of a label that it is none, and what was expected."""
        ids = f", or their ids 0 to {len(self.names) - 1}" if self.by_id else ""
        unlabelled = " -1 often marks a row without a label." if label == "-1" else ""
        return (
            f"has {what} {label!r}; expected one of {listed(self.names)}{ids}. Correct "
            f"it, or class_names.{unlabelled}"
        )


def is_whole(label: str) -> bool:
    """Tell whether a label spells a whole number.

    >>> is_whole("-1"), is_whole("1.0"), is_whole("one")
    (True, False, False)
    """
    return _WHOLE.fullmatch(label) is not None


def sort_names(labels: Iterable[str]) -> tuple[str, ...]:
    """Sort labels, as numbers where all are whole numbers.

    >>> sort_names({"10", "9"}), sort_names({"10", "9", "b"})
    (('9', '10'), ('10', '9', 'b'))
    """
    names = sorted(set(labels))
    return tuple(sorted(names, key=int) if all(map(is_whole, names)) else names)


def sort_tags(labels: Iterable[str]) -> tuple[str, ...]:
    """Sort tags: ``O`` first, then by entity, of each B before I.

    >>> sort_tags({"I-PER", "B-PER", "O", "B-LOC"})
    ('O', 'B-LOC', 'B-PER', 'I-PER')
    """
    names = sort_names(labels)
    return names if all(map(is_whole, names)) else tuple(sorted(names, key=_tag_key))


def given_classes(names: Sequence[str], labels: Iterable[str]) -> Classes:
    """Return the classes of that order; ids are labels where no name is one.

    Args:
      names: of the classes.
      labels: those of the data; where none is a name and some are whole numbers,
        whole numbers are ids.

    Raises:
      InputError: for fewer than two names, a blank or a repeated one.

    Example:
      >>> given_classes(["no", "yes"], ["1", "0"]).id("1")
      1
    """
    names = tuple(str(name).strip() for name in names)
    if len(names) < 2 or len(set(names)) < len(names) or "" in names:
        raise InputError(
            f"class_names are {list(names)}; expected at least two, all different and "
            "none of them blank."
        )
    ids = {name: i for i, name in enumerate(names)}
    found = set(labels)
    if not found & set(ids) and any(map(is_whole, found)):
        return Classes(
            names=names, ids={str(i): i for i in range(len(names))}, by_id=True
        )
    return Classes(names=names, ids=ids)


def found_classes(names: Sequence[str]) -> Classes:
    """Return the classes that were found, in that order.

    >>> found_classes(["no", "yes"]).id("yes")
    1
    """
    return Classes(names=tuple(names), ids={name: i for i, name in enumerate(names)})


def is_header(labels: Sequence[str]) -> bool:
    """Tell whether the first label alone is no number: a name read as a label.

    >>> is_header(["label", "0", "1"]), is_header(["a", "b", "1"])
    (True, False)
    """
    return (
        len(labels) > 1
        and not is_whole(labels[0])
        and all(is_whole(label) for label in labels[1:])
    )


def listed(names: Sequence[str], most: int = 20) -> str:
    """Write names in a message, the first of many.

    >>> listed(["a", "b", "c"], most=2)
    "['a', 'b', … 3 in all]"
    """
    if len(names) <= most:
        return str(list(names))
    return f"{str(list(names[:most]))[:-1]}, … {len(names)} in all]"


def _tag_key(tag: str) -> tuple[bool, str, int, str]:
    prefix, dash, entity = tag.partition("-")
    if not dash or len(prefix) != 1:
        return tag != "O", tag, 0, ""
    return True, entity, _PREFIXES.get(prefix, 2), prefix
