# SPDX-License-Identifier: Apache-2.0
"""Scores of written texts: a reference string, or a list of them, against strings.

BLEU and chrF are sacrebleu's of the whole corpus, in [0, 100] as they are published;
the others lie in [0, 1]. Texts must not be tokenised: the metrics do that themselves.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from jft.evals.scoring import Metric, MetricFn
from jft.types import InputError

References: TypeAlias = Sequence[str] | Sequence[Sequence[str]]


def bleu(references: References, hypotheses: Sequence[str]) -> float:
    """BLEU of the corpus (Papineni et al. 2002), in [0, 100].

    sacrebleu's signature is ``case:mixed|eff:no|tok:13a|smooth:exp``: words are split
    as WMT's script does, which suits languages that write blanks between them.
    """
    import sacrebleu

    return float(sacrebleu.corpus_bleu(hypotheses, _streams(references)).score)


def chrf(references: References, hypotheses: Sequence[str]) -> float:
    """F score of character 6-grams of the corpus (Popović 2015), in [0, 100].

    sacrebleu's signature is ``case:mixed|eff:yes|nc:6|nw:0|space:no``: chrF2, for any
    language.
    """
    import sacrebleu

    return float(sacrebleu.corpus_chrf(hypotheses, _streams(references)).score)


def rouge1(
    references: References, hypotheses: Sequence[str], *, use_stemmer: bool = True
) -> float:
    """Mean F score of shared words (Lin 2004); of several references the best.

    rouge_score's, which knows the letters a to z and digits only: in other scripts it
    finds no words and gives 0, so use `chrf` there.

    Args:
      references: what is right.
      hypotheses: what was written.
      use_stemmer: cut English endings first, as published results mostly do.
    """
    return _mean_rouge("rouge1", references, hypotheses, use_stemmer)


def rouge2(
    references: References, hypotheses: Sequence[str], *, use_stemmer: bool = True
) -> float:
    """Mean F score of shared pairs of words; else as `rouge1`."""
    return _mean_rouge("rouge2", references, hypotheses, use_stemmer)


def rouge_l(
    references: References, hypotheses: Sequence[str], *, use_stemmer: bool = True
) -> float:
    """Mean F score of the longest common subsequence of words; else as `rouge1`."""
    return _mean_rouge("rougeL", references, hypotheses, use_stemmer)


def exact_match(references: References, hypotheses: Sequence[str]) -> float:
    """Share of texts that equal a reference, blanks around them aside.

    >>> exact_match(["yes", ["no", "nope"]], [" yes", "no way"])
    0.5
    """
    scores = [
        hypothesis.strip() in {text.strip() for text in texts}
        for texts, hypothesis in zip(_as_lists(references), hypotheses, strict=True)
    ]
    return float(np.mean(scores))


TEXT_METRICS: Mapping[str, MetricFn] = {
    "bleu": Metric(bleu, package="sacrebleu"),
    "chrf": Metric(chrf, package="sacrebleu"),
    "exact_match": Metric(exact_match),
    "rouge1": Metric(rouge1, package="rouge_score"),
    "rouge2": Metric(rouge2, package="rouge_score"),
    "rougeL": Metric(rouge_l, package="rouge_score"),
}


def perplexity(loss_sum: float, weight: float) -> float:
    """``exp(loss_sum / weight)`` of a language model, causal or masked.

    Args:
      loss_sum: cross-entropy of all scored tokens in nats, without label smoothing.
      weight: how many they are.

    Returns:
      1 at best; infinite where it is too large for a float, NaN without a token.

    Example:
      >>> round(perplexity(2 * math.log(10), 2.0), 6)  # one of ten, each time
      10.0
    """
    if not weight:
        return float("nan")
    try:
        return math.exp(loss_sum / weight)
    except OverflowError:
        return float("inf")


def _as_lists(references: References) -> list[list[str]]:
    """Every example's references as a list."""
    lists = [[texts] if isinstance(texts, str) else list(texts) for texts in references]
    for i, texts in enumerate(lists):
        if not texts:
            raise InputError(
                f"example {i} has no reference text to score against; expected one or "
                "more. Leave the example out."
            )
    return lists


def _streams(references: References) -> list[list[str | None]]:
    """The first reference of every example, the second, …; None where there is none."""
    lists = _as_lists(references)
    return [
        [texts[k] if k < len(texts) else None for texts in lists]
        for k in range(max(map(len, lists)))
    ]


def _mean_rouge(
    kind: str, references: References, hypotheses: Sequence[str], use_stemmer: bool
) -> float:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([kind], use_stemmer=use_stemmer)
    scores = [
        scorer.score_multi(texts, hypothesis)[kind].fmeasure
        for texts, hypothesis in zip(_as_lists(references), hypotheses, strict=True)
    ]
    return float(np.mean(scores))
