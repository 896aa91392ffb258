# SPDX-License-Identifier: Apache-2.0
"""The libraries called as their users do: metric objects, their own argument order."""

import math

import numpy as np
import pytest

from jft.evals import TEXT_METRICS, perplexity
from jft.evals.text_metrics import rouge1
from jft.types import InputError

WORDS = ["the", "cats", "were", "sitting", "on", "a", "mat", "quickly", "und", "ein"]


def make_texts(num_references, num=12, seed=0):
    """References that share most words with a hypothesis."""
    generator = np.random.default_rng(seed)
    hypotheses, references = [], []
    for _ in range(num):
        words = generator.choice(WORDS, generator.integers(5, 14))
        hypotheses.append(" ".join(words))
        others = []
        for _ in range(num_references):
            changed = generator.random(len(words)) < 0.2
            new = np.where(changed, generator.choice(WORDS, len(words)), words)
            others.append(" ".join(new) + ".")
        references.append(others)
    return references, hypotheses


@pytest.mark.parametrize("num_references", [1, 3])
def test_corpus_scores_are_sacrebleus(num_references):
    pytest.importorskip("sacrebleu", reason="sacrebleu is in the text extra")
    from sacrebleu.metrics import BLEU, CHRF

    references, hypotheses = make_texts(num_references)
    streams = [list(stream) for stream in zip(*references, strict=True)]
    signatures = {
        "bleu": "case:mixed|eff:no|tok:13a|smooth:exp",
        "chrf": "case:mixed|eff:yes|nc:6|nw:0|space:no",
    }
    for name, metric in (("bleu", BLEU()), ("chrf", CHRF())):
        expected = metric.corpus_score(hypotheses, streams).score
        assert 10 < expected < 100
        assert TEXT_METRICS[name](references, hypotheses) == pytest.approx(expected)
        assert signatures[name] in str(metric.get_signature())


def test_examples_may_have_unequal_numbers_of_references():
    pytest.importorskip("sacrebleu", reason="sacrebleu is in the text extra")
    references, hypotheses = make_texts(2)
    fewer = [
        [first] if i % 2 else [first, b] for i, (first, b) in enumerate(references)
    ]
    repeated = [texts * 2 if len(texts) == 1 else texts for texts in fewer]
    for name in ("bleu", "chrf"):
        score = TEXT_METRICS[name](fewer, hypotheses)
        assert score == pytest.approx(TEXT_METRICS[name](repeated, hypotheses))


@pytest.mark.parametrize("name", sorted(TEXT_METRICS))
def test_one_reference_may_be_a_string(name):
    for package in ("sacrebleu", "rouge_score"):
        pytest.importorskip(package, reason=f"{package} is in the text extra")
    references, hypotheses = make_texts(1)
    plain = [texts[0] for texts in references]
    score = TEXT_METRICS[name](plain, hypotheses)
    assert score == TEXT_METRICS[name](references, hypotheses)
    assert TEXT_METRICS[name](hypotheses, hypotheses) == pytest.approx(
        100.0 if name in ("bleu", "chrf") else 1.0
    )


@pytest.mark.parametrize("num_references", [1, 3])
def test_rouge_is_the_mean_of_the_best(num_references):
    pytest.importorskip("rouge_score", reason="rouge-score is in the text extra")
    from rouge_score.rouge_scorer import RougeScorer

    references, hypotheses = make_texts(num_references)
    for name in ("rouge1", "rouge2", "rougeL"):
        scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
        expected = np.mean(
            [
                max(scorer.score(text, hypothesis)[name].fmeasure for text in texts)
                for texts, hypothesis in zip(references, hypotheses, strict=True)
            ]
        )
        assert 0.3 < expected < 1
        assert TEXT_METRICS[name](references, hypotheses) == pytest.approx(expected)


def test_rouge_cuts_english_endings_unless_told_not_to():
    pytest.importorskip("rouge_score", reason="rouge-score is in the text extra")
    assert rouge1(["cats sit"], ["cat sits"]) == 1.0
    assert rouge1(["cats sit"], ["cat sits"], use_stemmer=False) == 0.0


def test_exact_match_of_any_reference():
    references = ["yes", ["no", " nope\n"], "Yes", [""]]
    assert TEXT_METRICS["exact_match"](references, ["yes ", "nope", "yes", ""]) == 0.75


@pytest.mark.parametrize("name", sorted(TEXT_METRICS))
def test_an_example_without_a_reference_is_refused(name):
    for package in ("sacrebleu", "rouge_score"):
        pytest.importorskip(package, reason=f"{package} is in the text extra")
    with pytest.raises(InputError, match="example 1 has no reference"):
        TEXT_METRICS[name]([["a"], []], ["a", "b"])


def test_perplexity_by_hand():
    probabilities = [0.5, 0.25, 0.125]
    loss_sum = -sum(map(math.log, probabilities))
    assert perplexity(loss_sum, 3.0) == pytest.approx(
        np.prod(probabilities) ** (-1 / 3)
    )
    assert math.isnan(perplexity(0.0, 0.0))
    assert math.isnan(perplexity(float("nan"), 2.0))
    assert perplexity(1e6, 1.0) == math.inf
