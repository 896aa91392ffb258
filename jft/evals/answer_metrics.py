# SPDX-License-Identifier: Apache-2.0
"""Scores of answers found in a text: lists of right answers against predicted strings.

Those of SQuAD's evaluation script 2.0 (Rajpurkar et al. 2018,
https://arxiv.org/abs/1806.03822), as shares instead of percents. An empty list says
that there is no answer, and so does an empty prediction. On SQuAD 1.1 its script gives
the same, save for right answers of nothing but articles and punctuation.
"""

import collections
import re
import string
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from jft.evals.scoring import Metric, MetricFn

Answers: TypeAlias = Sequence[Sequence[str]]  # all that are right, of each example

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalize_answer(text: str) -> str:
    """Lower-case, without punctuation, articles and repeated blanks, in this order.

    >>> normalize_answer("The  cat's a mat.")
    'cats mat'
    """
    bare = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def exact_match(references: Answers, predictions: Sequence[str]) -> float:
    """Share of the predictions that equal a right answer, both normalised.

    >>> exact_match([["the Nile", "Nile river"], []], ["Nile.", ""])
    1.0
    """
    return _mean_of_best(_equal, references, predictions)


def f1(references: Answers, predictions: Sequence[str]) -> float:
    """Mean F1 of the words shared with the right answer that shares most.

    Where either side has no words, 1 if both have none, else 0.

    >>> round(f1([["Nile river", "Amazon"], []], ["Nile", "Nile"]), 4)  # 2/3 and 0
    0.3333
    """
    return _mean_of_best(_word_f1, references, predictions)


ANSWER_METRICS: Mapping[str, MetricFn] = {
    "exact_match": Metric(exact_match),
    "f1": Metric(f1),
}


def _mean_of_best(
    score_fn: Callable[[str, str], float],
    references: Answers,
    predictions: Sequence[str],
) -> float:
    scores = []
    for answers, prediction in zip(references, predictions, strict=True):
        right = [normalize_answer(answer) for answer in answers]
        right = [answer for answer in right if answer] or [""]
        said = normalize_answer(prediction)
        scores.append(max(score_fn(answer, said) for answer in right))
    return float(np.mean(scores))


def _equal(answer: str, said: str) -> float:
    return float(answer == said)


def _word_f1(answer: str, said: str) -> float:
    words, said_words = answer.split(), said.split()
    if not words and not said_words:
        return 1.0
    shared = collections.Counter(words) & collections.Counter(said_words)
    return 2 * shared.total() / (len(words) + len(said_words))
