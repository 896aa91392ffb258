# SPDX-License-Identifier: Apache-2.0
"""seqeval's report, as Hugging Face's ``evaluate`` reads it, and entities by hand."""

import numpy as np
import pytest

from jft.evals import TAGGING_METRICS, entity_f1s
from jft.types import InputError

pytest.importorskip("seqeval", reason="seqeval is in the text extra")

TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
TRUE = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-LOC", "O"]]
SAID = [["B-PER", "I-PER", "O", "O"], ["I-LOC", "B-LOC", "B-PER"]]


def scores(references, predictions):
    return {
        name: metric(references, predictions)
        for name, metric in TAGGING_METRICS.items()
    }


def random_tags(seed):
    generator = np.random.default_rng(seed)
    lengths = np.random.default_rng(0).integers(1, 12, 40)
    return [list(generator.choice(TAGS, n)) for n in lengths]


def report_of(references, predictions):
    from seqeval.metrics import accuracy_score, classification_report

    report = classification_report(references, predictions, output_dict=True)
    overall = report.pop("micro avg")
    expected = {
        "entity_f1": overall["f1-score"],
        "entity_precision": overall["precision"],
        "entity_recall": overall["recall"],
        "token_accuracy": accuracy_score(references, predictions),
    }
    types = {k: v for k, v in report.items() if not k.endswith(" avg")}
    return expected, types


def test_entities_by_hand():
    # 2 of 4 predicted are among the 3 true ones; 4 of 7 tags are right
    assert scores(TRUE, SAID) == pytest.approx(
        {
            "entity_f1": 2 * 2 / (4 + 3),
            "entity_precision": 2 / 4,
            "entity_recall": 2 / 3,
            "token_accuracy": 4 / 7,
        }
    )


def test_equals_the_report_of_seqeval():
    references, predictions = random_tags(1), random_tags(2)
    expected, types = report_of(references, predictions)
    assert scores(references, predictions) == pytest.approx(expected, rel=1e-12)
    f1s = entity_f1s(references, predictions)
    assert list(f1s) == sorted(types) == ["LOC", "PER"]
    for name, (score, count) in f1s.items():
        assert score == pytest.approx(types[name]["f1-score"], rel=1e-12)
        assert count == types[name]["support"]


def test_a_missing_type_is_0_without_a_warning():
    only_person = [["B-PER", "O"]]
    only_place = [["O", "B-LOC"]]
    assert scores(only_person, only_place)["entity_f1"] == 0.0
    assert entity_f1s(only_person, only_place) == {"LOC": (0.0, 0), "PER": (0.0, 1)}
    nothing = [["O", "O"]]
    assert scores(nothing, nothing)["entity_f1"] == 0.0
    assert scores(nothing, nothing)["token_accuracy"] == 1.0


def test_other_warnings_are_still_seen():
    with pytest.warns(UserWarning, match="PER seems not to be NE tag"):
        TAGGING_METRICS["entity_f1"]([["PER"]], [["PER"]])


def test_what_seqeval_is_given_may_be_tuples():
    as_tuples = [tuple(tuple(tags) for tags in rows) for rows in (TRUE, SAID)]
    assert scores(*as_tuples) == scores(TRUE, SAID)
    assert entity_f1s(*as_tuples) == entity_f1s(TRUE, SAID)


def test_a_tag_is_needed_for_each_word():
    with pytest.raises(InputError, match="example 1 has 3 words but 2 predicted"):
        TAGGING_METRICS["entity_f1"](TRUE, [SAID[0], SAID[1][:2]])
