# SPDX-License-Identifier: Apache-2.0
"""Pairs of sentences, and many of them from few examples of some classes."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from jft.data.fields.padding import Pad
from jft.data.fields.tokens import Row, TextFields, check_max_length, target_field
from jft.data.sources.source import Example, digest
from jft.types import InputError


class SentencePairFields(TextFields):
    """Two sentences -> one row with both; made by `make_sentence_pair_fields`."""

    def __init__(self, tokenizer: Any, *, max_length: int) -> None:
        super().__init__(tokenizer, max_length=max_length)
        pair = {f"pair_{n}": Pad(p.value, "pair") for n, p in self.padding.items()}
        self.padding = {**self.padding, **pair}

    def __call__(self, examples: Sequence[Example]) -> list[list[Row]]:
        """Prepare examples, all in one call of the tokenizer for each side."""
        sides = self._side(examples, "text"), self._side(examples, "text_pair")
        rows = []
        for [first], [second], example in zip(*sides, examples, strict=True):
            cut = first.pop("truncated") | second.pop("truncated")
            pair = {f"pair_{name}": x for name, x in second.items()}
            rows.append([{**first, **pair, "truncated": cut, **target_field(example)}])
        return rows

    def _side(self, examples: Sequence[Example], name: str) -> list[list[Row]]:
        return super().__call__([{"text": example[name]} for example in examples])


def make_sentence_pair_fields(tokenizer: Any, *, max_length: int) -> SentencePairFields:
    """Make the fields of pairs of sentences, each of which is embedded by itself.

    Args:
      tokenizer: of transformers, as ``AutoTokenizer`` loads it, fast or not; copied.
      max_length: of a sentence, in tokens, special tokens included.

    Returns:
      A picklable ``examples -> rows``, one row an example in a list of its own:
      ``input_ids``, ``attention_mask`` and, where the tokenizer gives them,
      ``token_type_ids``, each int32 [l], of ``text``; the same with ``pair_`` before
      their names, each int32 [m], of ``text_pair``; ``truncated``, 1 where either was
      cut, else 0; ``targets`` where the example has them: float32, how alike the two
      are. Without targets each pair belongs together, and no other of its batch.

    Raises:
      InputError: as `make_text_fields`.
    """
    check_max_length(tokenizer, max_length)
    return SentencePairFields(tokenizer, max_length=max_length)


# --- pairs from classes ---------------------------------------------------------------
@runtime_checkable  # so that annotations can be checked under pytest
class LabelledTexts(Protocol):
    """Examples with the fields ``text`` and ``targets``, a class id."""

    class_names: tuple[str, ...]

    @property
    def targets(self) -> np.ndarray | None:
        """All class ids, int32 [N]."""

    def __len__(self) -> int:
        """Count them."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the fields of one."""

    def column(self, name: str) -> Sequence[Any]:
        """Return a field of all."""

    def where(self, index: int, column: str) -> str:
        """Say where a value stands in the user's files."""


class FewShotPairs:
    """Pairs of examples as rows; made by `few_shot_pairs`. A `Source`."""

    columns = ("text", "text_pair", "targets")

    def __init__(
        self, examples: LabelledTexts, pairs: np.ndarray, targets: np.ndarray
    ) -> None:
        self.examples = examples
        self.pairs = pairs  # int32 [N, 2], positions in examples
        self.targets = targets  # float32 [N]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        first, second = (self.examples[int(i)]["text"] for i in self.pairs[index])
        target = float(self.targets[index])
        return {"text": first, "text_pair": second, "targets": target}

    def column(self, name: str) -> Sequence[Any]:
        """Return one column's value of every row."""
        if name == "targets":
            return [float(target) for target in self.targets]
        texts = self.examples.column("text")
        return [texts[int(i)] for i in self.pairs[:, self._side(name)]]

    def where(self, index: int, column: str) -> str:
        """Say where the text of a row stands; of its target, where both do."""
        first, second = (self.examples.where(int(i), "text") for i in self.pairs[index])
        if column == "targets":
            return f"{first}, beside {second}"
        return (first, second)[self._side(column)]

    def _side(self, name: str) -> int:
        if name not in self.columns:
            raise InputError(
                f"pairs have no column {name!r}; they have {list(self.columns)}."
            )
        return self.columns.index(name)

    def __repr__(self) -> str:
        return f"FewShotPairs({self.examples!r}, {len(self)}, {digest([self.pairs])})"


def few_shot_pairs(
    examples: LabelledTexts, *, pairs_per_example: int, seed: int
) -> FewShotPairs:
    """Make pairs of texts of one class and of two, as SetFit trains on.

    Each example is the first of ``pairs_per_example`` pairs: half of them with another
    of its class, target 1, half with one of another class, target 0. Partners are drawn
    without repetition until there are no more.

    Args:
      examples: with ``text`` and ``targets``, class ids.
      pairs_per_example: an even number; SetFit's 20 iterations are 40 pairs.
      seed: of the draw; the same one gives the same pairs.

    Returns:
      A `Source` of N * pairs_per_example rows with the columns ``text``, ``text_pair``
      and ``targets``, a float.

    Raises:
      InputError: if the number is odd or below 2, the examples have no classes, there
        is one class only, or a class has one example only.

    Source: Tunstall et al. 2022, "Efficient Few-Shot Learning Without Prompts", arXiv
    2209.11055, section 3.
    """
    if pairs_per_example < 2 or pairs_per_example % 2:
        raise InputError(
            f"pairs_per_example is {pairs_per_example}; expected an even number from "
            "2 on: half are pairs of one class, half of two."
        )
    targets = _class_ids(examples)
    members = {int(c): np.flatnonzero(targets == c) for c in np.unique(targets)}
    others = {c: np.flatnonzero(targets != c) for c in members}
    generator = np.random.default_rng(seed)
    half = pairs_per_example // 2
    partners = []
    for example, target in enumerate(targets.tolist()):
        same = _draw(generator, len(members[target]) - 1, half)
        same += same >= np.searchsorted(members[target], example)  # not itself
        other = _draw(generator, len(others[target]), half)
        partners += [members[target][same], others[target][other]]
    first = np.repeat(np.arange(len(targets)), pairs_per_example)
    pairs = np.stack([first, np.concatenate(partners)], axis=1).astype(np.int32)
    alike = np.tile(np.repeat(np.array([1, 0], np.float32), half), len(targets))
    return FewShotPairs(examples, pairs, alike)


def _class_ids(examples: LabelledTexts) -> np.ndarray:
    targets = examples.targets
    if targets is None or targets.ndim != 1 or targets.dtype.kind != "i":
        raise InputError(
            f"{examples!r} has no class for each example; pairs are made of examples "
            "of classes. Read it as for text classification."
        )
    found, counts = np.unique(targets, return_counts=True)
    names = [examples.class_names[c] for c in found]
    if len(found) < 2 or counts.min() < 2:
        per_class = dict(zip(names, counts.tolist(), strict=True))
        raise InputError(
            f"the classes have these numbers of examples: {per_class}; pairs need two "
            "classes, and two examples of each. Add examples, or take a class out."
        )
    return targets


def _draw(generator: np.random.Generator, size: int, count: int) -> np.ndarray:
    """Draw from ``range(size)``, all once before any twice."""
    return np.resize(generator.permutation(size), count)
