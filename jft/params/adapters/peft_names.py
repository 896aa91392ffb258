# SPDX-License-Identifier: Apache-2.0
"""What PEFT calls a model's modules and tasks.

Modules have the names of torch's, in memory: the checkpoint's keys, but for families
whose modules transformers 5 renamed.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from jft.models import Family
from jft.params.keys import checkpoint_keys
from jft.types import InputError

# without "SEQ_2_SEQ_LM": PEFT 0.21 asks a model of that type for what transformers 5.23
# has renamed, and without a type it loads
TASK_TYPES: Mapping[str, str] = {
    "base": "FEATURE_EXTRACTION",
    "causal_lm": "CAUSAL_LM",
    "question_answering": "QUESTION_ANS",
    "sequence_classification": "SEQ_CLS",
    "token_classification": "TOKEN_CLS",
}


def task_type(task: str, *, needed: bool = False) -> str | None:
    """What PEFT calls a task; None: it has no type for it.

    Args:
      task: the model's.
      needed: a prompt or a prefix, which PEFT loads with a type alone, but for images.

    >>> task_type("masked_lm"), task_type("masked_lm", needed=True)
    (None, 'FEATURE_EXTRACTION')
    """
    other = "FEATURE_EXTRACTION" if needed and task != "image_classification" else None
    return TASK_TYPES.get(task, other)


class Names(NamedTuple):
    """A model's names and PEFT's, both ways."""

    family: Family  # the model's
    tensors: dict[str, str]  # path of a parameter -> torch's name of it
    paths: dict[str, str]  # and back; older names are read too
    modules: dict[str, str]  # path of a module -> torch's name of it
    module_paths: dict[str, str]  # and back; likewise

    def module_path(self, name: str) -> str:
        """The path of a module, of PEFT's name."""
        if name not in self.module_paths:
            raise InputError(
                f"the adapter is for a module {name!r}, which the model has not; it "
                f"has {sorted(self.modules.values())[:3]}, …: the adapter is another "
                "base's, or another head's."
            )
        return self.module_paths[name]


def make_names(family: Family, task: str, paths: Iterable[str]) -> Names:
    """Name a model's parameters and modules.

    >>> from jft.models import get_family
    >>> make_names(get_family("vit"), "image_classification",
    ...     ["vit/encoder/layer/0/output/dense/bias"]).tensors
    {'vit/encoder/layer/0/output/dense/bias': 'vit.layers.0.mlp.fc2.bias'}
    """
    paths = list(paths)
    keys = checkpoint_keys(family, task, paths)
    tensors = {path: _renamed(family, key) for path, key in keys.items()}
    both = [*keys.items(), *tensors.items()]
    tops = {path.partition("/")[0] for path in paths}  # a head of several modules
    return Names(
        family=family,
        tensors=tensors,
        paths={name: path for path, name in both},
        modules={top: top for top in tops}
        | {_parent(path, "/"): _parent(x, ".") for path, x in tensors.items()},
        module_paths={_parent(name, "."): _parent(path, "/") for path, name in both},
    )


def check_peft_pattern(
    what: str, pattern: Mapping[str, Any], adapted: Collection[str]
) -> None:
    """Refuse a pattern that names no adapted module, as `check_patterns` does."""
    for key in pattern:
        if not any(peft_value({key: True}, name, False) for name in adapted):
            raise InputError(
                f"adapter_config.json: {what} has {key!r}, which is none of the "
                f"adapted modules, such as {min(adapted)!r}; correct it, or take it "
                "out of the file."
            )


def names_module(named: Any, name: str) -> bool:
    """Whether PEFT's list of names, or its regex, picks the module of that name."""
    if isinstance(named, str):
        return re.fullmatch(named, name) is not None
    return any(name == x or name.endswith(f".{x}") for x in named or ())


def peft_value(pattern: Mapping[str, Any], name: str, default: Any) -> Any:
    """The value of the first of PEFT's patterns that names the module."""
    found = (v for k, v in pattern.items() if re.match(rf"(.*\.)?({k})$", name))
    return next(found, default)


def _renamed(family: Family, key: str) -> str:
    for pattern, replacement in family.torch_names:
        key = re.sub(pattern, replacement, key)
    return key


def _parent(name: str, separator: str) -> str:
    return name.rpartition(separator)[0]
