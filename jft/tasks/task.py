# SPDX-License-Identifier: Apache-2.0
"""What a task consists of."""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, get_type_hints

from jft.config import convert, converts
from jft.data import KINDS, Column
from jft.evals import MetricFn, Rows
from jft.types import ApplyFn, Batch, InputError, LossFn

# Checked examples, or the table of their tokens (`jft.data.TokenTable`).
Table: TypeAlias = Any


def same_apply(apply_fn: ApplyFn) -> ApplyFn:
    """The model's own forward."""
    return apply_fn


@dataclass(frozen=True, kw_only=True)
class Task:
    """Ties together columns, fields, head, loss, metrics and how a prediction reads.

    ``predict`` runs inside the compiled evaluation step and says what is kept of each
    row; ``predictions`` and ``references`` make one value an example of it on the
    host, which is what every metric compares.
    """

    name: str
    inputs: tuple[Column, ...]  # what of an example the model sees
    target: Column | None  # what it learns to give; None: the inputs are all there is
    head: str  # the head's name, a key of a family's ``heads``
    # (model, *, max_length, **options) -> fields function; the model is a `Pretrained`
    make_fields: Callable[..., Any]
    # (**options) -> loss; the names of its arguments are the options it has
    make_loss: Callable[..., LossFn]
    train_metrics: Mapping[str, LossFn]  # cheap (sum, weight) ones, inside the step
    predict: Callable[
        [Any, Batch], Mapping[str, Any]
    ]  # (outputs, batch) -> rows [B, …]
    predictions: Callable[[Rows, Table], Any]  # an array or a list
    references: Callable[[Table], Any]  # the same
    metrics: Mapping[str, MetricFn]
    default_metrics: tuple[str, ...]  # the first chooses the best checkpoint
    # one prediction, the class names -> what a person reads
    write_prediction: Callable[[Any, Sequence[str]], dict[str, Any]]
    pipeline: str  # what the Hub calls it; a key of jft.export.card.PIPELINES
    problem_type: str | None = None  # of config.json
    make_apply: Callable[[ApplyFn], ApplyFn] = same_apply  # from the model's forward
    # (model, **options) -> random change of an example's fields; at evaluation the
    # same change every time
    make_augment: Callable[..., Any] | None = None
    # how two outputs differ, a key of jft.train.DIVERGENCES; None: not comparable
    divergence: str | None = None
    writes: bool = False  # predictions are texts that the model writes
    packs: bool = False  # several examples may share a row
    # outputs are [B, L, V]; loss, train_metrics and what predict keeps are sums over
    # the tokens with a target, so that these can be scored a few at a time
    sums_tokens: bool = False
    # (model, example) -> the text that the model goes on from, where it can write
    make_prompt: Callable[[Any, Mapping[str, Any]], str] | None = None
    # (references, predictions, class names, file) -> the picture
    plot: Callable[[Any, Any, Sequence[str], Path], Path] | None = None
    plot_name: str = field(default="predictions.png")

    @property
    def columns(self) -> tuple[Column, ...]:
        """All that is read of an example."""
        return self.inputs if self.target is None else (*self.inputs, self.target)

    @property
    def has_classes(self) -> bool:
        """Whether what it learns to give has class names."""
        return self.target is not None and KINDS[self.target.kind].order is not None

    @property
    def runs_plainly(self) -> bool:
        """Whether its forward is the model's own, once over the batch."""
        return self.make_apply is same_apply

    @property
    def reads(self) -> str:
        """What the model sees: "image" or "text"."""
        kinds = {column.kind for column in self.inputs}
        return "image" if "image" in kinds else "text"


def call_with_options(
    function: Callable[..., Any],
    *arguments: Any,
    options: Mapping[str, Any],
    what: str,
    known: Collection[str] = (),
    taker: str = "this task",
    **given: Any,
) -> Any:
    """Call a function with those of a config's options that it takes.

    Args:
      function: has each option as a keyword argument.
      *arguments: passed on.
      options: by name.
      what: where they were given, for the message.
      known: options of other functions, which are left out.
      taker: whose function it is, for the message.
      **given: keyword arguments that are no options.

    Raises:
      InputError: for an option that nothing has, listing those there are, or that is
        of another type or out of range.
    """
    own = option_names(function) - set(given)
    check_options(options, own | set(known), what=what, taker=taker)
    hints = get_type_hints(function, include_extras=True)
    taken = {name: value for name, value in options.items() if name in own}
    for name, value in taken.items():
        if converts(hints[name]):  # of another hint the function itself knows more
            taken[name] = convert(value, hints[name], f"{what}.{name}")
    return function(*arguments, **given, **taken)


def check_options(
    options: Mapping[str, Any],
    known: Collection[str],
    *,
    what: str,
    taker: str = "this task",
) -> None:
    """Refuse options that nothing of the taker has.

    Raises:
      InputError: lists those there are.
    """
    if unknown := sorted(set(options) - set(known)):
        expected = f"some of {sorted(known)}" if known else "none"
        raise InputError(
            f"{what} has {unknown}, which {taker} does not take; expected {expected}."
        )


def option_names(function: Callable[..., Any] | None) -> set[str]:
    """The keyword arguments of a function, of None none."""
    if function is None:
        return set()
    return {
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
