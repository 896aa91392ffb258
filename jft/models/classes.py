# SPDX-License-Identifier: Apache-2.0
"""What a config.json says of a head's classes: their names, and the kind of problem.

transformers chooses its loss, and what its pipelines do to the scores, by
``problem_type``: softmax and cross-entropy for one class of several, a sigmoid and
binary cross-entropy for each class on its own, nothing and the squared error for a
number.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jft.models.family import Family
from jft.types import InputError

ONE_OF_SEVERAL = "single_label_classification"
ANY_OF_SEVERAL = "multi_label_classification"
NUMBER = "regression"
PROBLEM_TYPES = (ONE_OF_SEVERAL, ANY_OF_SEVERAL, NUMBER)

# what answers once an example, and so may be any of the problems
HEADS_WITH_PROBLEMS = ("image_classification", "sequence_classification")
HEADS_WITH_CLASSES = (*HEADS_WITH_PROBLEMS, "token_classification")


def with_classes(
    config: Mapping[str, Any],
    class_names: Sequence[str],
    problem_type: str | None = None,
) -> dict[str, Any]:
    """Return a config.json's dict with other classes.

    Args:
      config: config.json.
      class_names: in the order of their ids; for a number the one name of its score.
      problem_type: one of ``PROBLEM_TYPES``; None leaves it out, which transformers
        takes for one class of several, or for a number where there is one name.

    Raises:
      InputError: if names are missing or repeated, or do not fit the problem.

    >>> with_classes({"model_type": "vit"}, ["a", "b"])["label2id"]
    {'a': 0, 'b': 1}
    """
    if len(set(class_names)) != len(class_names) or not class_names:
        raise InputError(
            f"the class names are {list(class_names)}; expected at least one, all "
            "different."
        )
    _check_problem(problem_type, class_names)
    # another problem's source would have left its own type and count behind
    kept = {k: v for k, v in config.items() if k not in ("problem_type", "num_labels")}
    return {
        **kept,
        "id2label": {str(i): name for i, name in enumerate(class_names)},
        "label2id": {name: i for i, name in enumerate(class_names)},
        **({} if problem_type is None else {"problem_type": problem_type}),
    }


def class_names_of(config: Mapping[str, Any], *, num_classes: int) -> tuple[str, ...]:
    """Return the class names of a config.json by id, transformers' own where absent.

    >>> class_names_of({"id2label": {"1": "dog", "0": "cat"}}, num_classes=2)
    ('cat', 'dog')
    """
    names = {int(i): str(name) for i, name in (config.get("id2label") or {}).items()}
    if names and sorted(names) != list(range(num_classes)):
        raise InputError(
            f"config.json: id2label has the ids {sorted(names)}; they must be 0 to "
            f"{num_classes - 1}."
        )
    return tuple(names.get(i, f"LABEL_{i}") for i in range(num_classes))


def problem_type_of(config: Mapping[str, Any], *, num_classes: int) -> str:
    """Return what a classifier's config.json says it answers, or transformers assumes.

    >>> problem_type_of({}, num_classes=1)
    'regression'
    """
    assumed = NUMBER if num_classes == 1 else ONE_OF_SEVERAL
    return str(config.get("problem_type") or assumed)


def settle_classes(
    family: Family,
    config: Mapping[str, Any],
    task: str,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    problem_type: str | None = None,
) -> tuple[dict[str, Any], bool]:
    """Give a model's head its classes, and say whether the checkpoint's head has them.

    Args:
      family: of the model.
      config: the checkpoint's config.json.
      task: what the head answers.
      num_classes: asks for a new head of this size.
      class_names: of the head, in the order of their ids.
      problem_type: one of ``PROBLEM_TYPES``; a number needs no classes.

    Returns:
      config.json with these classes, and whether the checkpoint's own head is kept:
      where nothing is asked for, and where it has these classes for this problem.

    Raises:
      InputError: if the head has no classes, or they contradict each other.
    """
    if num_classes is None and class_names is None and problem_type is None:
        return dict(config), True
    names = _names(task, num_classes, class_names, problem_type)
    settled = with_classes(config, names, problem_type)
    own_head = (config.get("architectures") or [None])[0] == family.heads[task]
    if num_classes is not None or not own_head:
        return settled, False
    num_own = family.config_from_dict(config).num_labels
    is_same = num_own == len(names) and (
        problem_type_of(config, num_classes=num_own)
        == problem_type_of(settled, num_classes=num_own)
    )
    if is_same and class_names is None:  # a number keeps its name
        return {**config, "problem_type": problem_type}, True
    return settled, is_same and class_names_of(config, num_classes=num_own) == names


def _names(
    task: str,
    num_classes: int | None,
    class_names: Sequence[str] | None,
    problem_type: str | None,
) -> tuple[str, ...]:
    if task not in HEADS_WITH_CLASSES:
        raise InputError(
            f"the head {task!r} has no classes, but num_classes, class_names or "
            "problem_type were given; choose a head with task=…, one of "
            f"{sorted(HEADS_WITH_CLASSES)}."
        )
    if problem_type is not None and task not in HEADS_WITH_PROBLEMS:
        raise InputError(
            f"problem_type is {problem_type!r}, which is for the heads "
            f"{sorted(HEADS_WITH_PROBLEMS)}; the head {task!r} gives each token one "
            "class. Leave it out."
        )
    _check_known(problem_type)
    if class_names is None and num_classes is None:
        if problem_type != NUMBER:
            raise InputError(
                f"problem_type is {problem_type!r}, but neither num_classes nor "
                "class_names are given; give the classes."
            )
        num_classes = 1
    if class_names is None:
        assert num_classes is not None
        if num_classes < 1:
            raise InputError(f"num_classes is {num_classes}; a head needs one or more.")
        return class_names_of({}, num_classes=num_classes)
    if num_classes not in (None, len(class_names)):
        raise InputError(
            f"num_classes is {num_classes}, but {len(class_names)} class names are "
            "given; give one of the two."
        )
    return tuple(class_names)


def _check_problem(problem_type: str | None, classes: Sequence[str]) -> None:
    _check_known(problem_type)
    if problem_type == NUMBER and len(classes) != 1:
        raise InputError(
            f"problem_type is {NUMBER!r}, a single number, but there are "
            f"{len(classes)} classes: {list(classes)[:20]}. Give one name, or none."
        )
    if problem_type == ONE_OF_SEVERAL and len(classes) == 1:
        raise InputError(
            f"problem_type is {ONE_OF_SEVERAL!r}, but there is one class only: "
            f"{list(classes)}. Give two or more, or {NUMBER!r} for a number."
        )


def _check_known(problem_type: str | None) -> None:
    if problem_type not in (None, *PROBLEM_TYPES):
        raise InputError(
            f"problem_type is {problem_type!r}; expected one of {list(PROBLEM_TYPES)}."
        )
