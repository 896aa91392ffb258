# SPDX-License-Identifier: Apache-2.0
import pytest

from jft.data import load_csv_source, load_source, load_tsv_source
from jft.types import InputError


@pytest.fixture
def write(tmp_path):
    def write_file(text, name="train.tsv"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return write_file


def test_an_example_and_the_classes_that_are_found(write):
    source = load_source("tsv", write("so bad\tneg\n\nso good\t pos \nhm\tneg\n"))
    assert source.class_names == ("neg", "pos")
    assert source.targets.tolist() == [0, 1, 0]
    example = source[1]
    assert example == {"text": "so good", "targets": 1, "id": "train.tsv, line 3"}


def test_labels_that_are_numbers_are_sorted_as_numbers(write):
    rows = "".join(f"text {i}\t{i}\n" for i in (10, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8))
    source = load_source("tsv", write(rows))
    assert source.class_names == tuple(map(str, range(11)))
    assert source.targets.tolist() == [10, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8]


def test_columns_by_name_and_pairs(write):
    text = "id,premise,hypothesis,gold\n7,it rains,it is wet,yes\n8,it rains,ha,no\n"
    source = load_csv_source(
        write(text, "a.csv"),
        text_column="premise",
        pair_column="hypothesis",
        label_column=3,
        class_names=["yes", "no"],
    )
    assert source.targets.tolist() == [0, 1]
    assert source[1]["text_pair"] == "ha"
    assert source[0]["text"] == "it rains"


@pytest.mark.parametrize(
    ("labels", "names", "targets"),
    [
        ("01", ("negative", "positive"), [0, 1]),  # ids of names that are given
        ("12", ("2", "1"), [1, 0]),  # names, though they are numbers
    ],
)
def test_given_names_are_of_labels_or_of_ids(labels, names, targets, write):
    rows = "".join(f"text\t{label}\n" for label in labels)
    source = load_tsv_source(write(rows), class_names=names)
    assert (source.class_names, source.targets.tolist()) == (names, targets)


def test_repr_is_of_the_content_and_not_of_the_place(write):
    one = repr(load_source("tsv", write("a\t0\nb\t1\n")))
    assert repr(load_source("tsv", write("a\t0\nb\t1\n", "other.tsv"))) == one
    for text in ("a\t1\nb\t0\n", "a\t0\nc\t1\n", "b\t1\na\t0\n"):
        assert repr(load_source("tsv", write(text))) != one


FAULTS = {
    "no text": ("a\t0\n \t1\n", {}, "line 2, column 0 holds no text"),
    "no pair": (
        "a\tb\t0\na\t\t1\n",
        {"pair_column": 1, "label_column": 2},
        "line 2, column 1 holds no text",
    ),
    "no label": ("a\tx\nb\t \n", {}, "line 2, column 1 has no label"),
    "unknown label": (
        "a\tx\nb\tz\n",
        {"class_names": ["x", "y"]},
        r"line 2, column 1 has the label 'z'; expected one of \['x', 'y'\]",
    ),
    "id out of range": (
        "a\t0\nb\t2\n",
        {"class_names": ["x", "y"]},
        r"line 2, column 1 has the label '2'; expected one of.*or their ids 0 to 1",
    ),
    "a name among ids": (
        "a\t0\nb\t1\nc\tz\n",
        {"class_names": ["x", "y"]},
        r"line 3, column 1 has the label 'z'; expected one of \['x', 'y'\], or",
    ),
    "an id among names": (
        "a\tx\nb\t1\nc\ty\n",
        {"class_names": ["x", "y"]},
        r"line 2, column 1 has the label '1'; expected one of \['x', 'y'\]\. Correct",
    ),
    "header read as a row": (
        "sentence\tlabel\na\t0\nb\t1\n",
        {},
        "line 1, column 1 has the label 'label'.*set header to True",
    ),
    "no such column": ("a\t0\n", {"text_column": 3}, "there is no column 3"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_name_row_and_column(name, write):
    text, options, message = FAULTS[name]
    with pytest.raises(InputError, match=message) as caught:
        load_tsv_source(write(text), **options)
    assert "train.tsv" in str(caught.value)


def test_real_reviews(shared_data):
    file = shared_data / "sst2" / "dev.tsv"
    source = load_source("tsv", str(file), class_names=("negative", "positive"))
    assert len(source) == 872
    assert source[0]["text"] == "one long string of cliches"
    assert source.class_names[source.targets[0]] == "negative"
