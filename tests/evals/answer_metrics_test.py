# SPDX-License-Identifier: Apache-2.0
"""A table by hand, after the rules of SQuAD's evaluation script 2.0."""

import pytest

from jft.evals import ANSWER_METRICS
from jft.evals.answer_metrics import normalize_answer

# right answers, prediction, exact match, F1
TABLE = {
    "same": (["Denver Broncos"], "Denver Broncos", 1, 1),
    "case": (["denver broncos"], "DENVER Broncos", 1, 1),
    "articles": (["The Denver Broncos"], "a Denver an Broncos", 1, 1),
    "articles inside words stay": (["theme"], "me", 0, 0),
    "punctuation joins": (["mid-1990s"], "mid1990s", 1, 1),
    "an article behind punctuation": (["a-team"], "ateam", 1, 1),
    "an article of letters beyond ASCII stays": (["thé"], "", 0, 0),
    "quotes beyond ASCII stay": (["“x”"], "x", 0, 0),
    "blanks": (["New\u00a0York\t City"], " New York  City", 1, 1),
    "part": (["Denver Broncos"], "Broncos", 0, 2 * 1 * 0.5 / 1.5),
    "too much": (["Broncos"], "Denver Broncos won", 0, 2 * 1 * (1 / 3) / (4 / 3)),
    "words count as often as they come": (["b b c"], "b b b", 0, 2 / 3),
    "order does not matter": (["b c"], "c b", 0, 1),
    "no word shared": (["Denver"], "Carolina", 0, 0),
    "the best of several": (["Denver", "Denver Broncos"], "Broncos Denver", 0, 1),
    "nothing predicted": (["Denver"], "", 0, 0),
    "no answer, none predicted": ([], "", 1, 1),
    "no answer, an article predicted": ([], "the.", 1, 1),
    "no answer, one predicted": ([], "Denver", 0, 0),
    "right answers that are only articles count as none": (["the"], "", 1, 1),
    "but not beside others": (["the", "Denver"], "", 0, 0),
}


@pytest.mark.parametrize("name", TABLE)
def test_by_hand(name):
    answers, prediction, exact, f1 = TABLE[name]
    assert ANSWER_METRICS["exact_match"]([answers], [prediction]) == exact
    assert ANSWER_METRICS["f1"]([answers], [prediction]) == pytest.approx(f1)


def test_the_score_is_the_mean_over_questions():
    answers, predictions, exact, f1 = zip(*TABLE.values(), strict=True)
    assert ANSWER_METRICS.keys() == {"exact_match", "f1"}
    for name, expected in (("exact_match", exact), ("f1", f1)):
        score = ANSWER_METRICS[name](answers, predictions)
        assert score == pytest.approx(sum(expected) / len(TABLE))


def test_normalising_twice_changes_nothing():
    for answers, prediction, _, _ in TABLE.values():
        for text in (*answers, prediction):
            assert normalize_answer(normalize_answer(text)) == normalize_answer(text)
