# SPDX-License-Identifier: Apache-2.0
"""One label tree is the truth about which group each parameter belongs to."""

from collections.abc import Iterable

from jft import paths
from jft.params.quantised import flatten_whole, kind_of, num_numbers, whole_path
from jft.types import FROZEN, InputError, ParamLabels, Params


def label_params(params: Params, rules: paths.Rules[str]) -> ParamLabels:
    """Label every leaf by the first rule that matches its whole path.

    A quantised matrix is one leaf, at the path it had before.

    Args:
      params: any pytree; only its structure is read.
      rules: ordered ``(regex, label)`` pairs; the label ``"frozen"`` never moves,
        every other label is the name of a group that does.

    Returns:
      A tree of strings with the structure of ``params``.

    Raises:
      InputError: if a path matches no rule, a rule wins no path, or everything
        would be frozen.

    Example:
      >>> label_params({"head": 0.0, "body": 1.0}, [("head", "new"), (".*", "frozen")])
      {'body': 'frozen', 'head': 'new'}
    """
    labels = paths.match_rules(rules, flatten_whole(params))
    if all(label == FROZEN for label in labels.values()):
        raise InputError(
            f"the rules {list(rules)} freeze all {len(labels)} parameters, so nothing "
            'would train; give at least one path a label other than "frozen".'
        )
    return paths.map_with_path(lambda path, _: labels[whole_path(path)], params)


def is_trainable(label: str) -> bool:
    """Whether parameters with this label ever move."""
    return label != FROZEN


def label_of_paths(params: Params, param_labels: ParamLabels) -> dict[str, str]:
    """The label of each path, of labels that fit the parameters.

    Args:
      params: any pytree.
      param_labels: a tree of strings of the same structure.

    Raises:
      InputError: if the structures differ, listing both sides, or if a label is no
        string, or all but the label ``"frozen"``.
    """
    labels, leaves = paths.flatten(param_labels), paths.flatten(params)
    if labels.keys() != leaves.keys():
        raise InputError(
            "params and param_labels differ in structure. Only in params: "
            f"{paths.shorten(sorted(leaves.keys() - labels.keys()))}. Only in "
            f"param_labels: {paths.shorten(sorted(labels.keys() - leaves.keys()))}. "
            "Make the labels with label_params(params, rules)."
        )
    for path, label in labels.items():
        if not isinstance(label, str) or label.lower() == FROZEN != label:
            raise InputError(
                f"the label of {path} is {label!r}; expected a string: {FROZEN!r}, in "
                "these letters, for what never moves, or the name of a group that does."
            )
    return labels


def check_new_leaves_move(new_paths: Iterable[str], param_labels: ParamLabels) -> None:
    """Refuse a labelling that freezes freshly drawn parameters.

    Args:
      new_paths: the leaves that no checkpoint provided, such as a new head.
      param_labels: the label tree.

    Raises:
      InputError: if one of them is frozen: random numbers would stay random.
    """
    labels = paths.flatten(param_labels)
    stuck = sorted(path for path in new_paths if not is_trainable(labels[path]))
    if stuck:
        raise InputError(
            "new parameters are frozen and would stay random: "
            f"{paths.shorten(stuck)}. Expected every newly drawn leaf in a "
            "group that trains; add a rule such as "
            f'("{stuck[0].rsplit("/", 1)[0]}/.*", "head") before the frozen one.'
        )


def check_quantised_stay(params: Params, param_labels: ParamLabels) -> None:
    """Refuse a labelling that lets a quantised matrix move.

    Args:
      params: any pytree.
      param_labels: a tree of strings of the same structure.

    Raises:
      InputError: naming the matrix: codes have no gradient.
    """
    labels = paths.flatten(param_labels)
    for path, matrix in flatten_whole(params).items():
        kind = kind_of(matrix)
        label = labels.get(f"{path}/{kind}", FROZEN)
        if is_trainable(label):
            raise InputError(
                f"{path} is quantised ({kind}), so it cannot train, but its label is "
                f"{label!r}. Put an adapter beside it (jft.adapt; in a config "
                f'adapter.method), freeze it with a rule such as ("{path}", "frozen"), '
                "or load the base without quantize (in a config model.quantize)."
            )


def num_params(tree: Params) -> int:
    """Count the scalars of a tree; ``None`` holes count nothing.

    The codes of a quantised matrix are its scalars.
    """
    return sum(num_numbers(path, x) for path, x in paths.flatten(tree).items())
