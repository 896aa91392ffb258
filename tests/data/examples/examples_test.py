# SPDX-License-Identifier: Apache-2.0
"""Rows become examples of known types; a bad one is named, or skipped and counted."""

import pickle
import re

import numpy as np
import pytest

from jft.data.examples.classes import sort_names, sort_tags
from jft.data.examples.examples import make_examples
from jft.data.examples.kinds import KINDS, Column
from jft.data.sources.catalog import load_source
from jft.data.sources.conll import load_conll
from jft.data.sources.source import ArraySource, Source, select_columns
from jft.data.sources.squad import load_squad
from jft.types import InputError


class Rows:
    """Rows of a file that say where they stand, and count what is read of them."""

    def __init__(self, **values):
        self.columns = tuple(values)
        self.values = values
        self.reads = 0

    def __len__(self):
        return len(self.values[self.columns[0]])

    def __getitem__(self, index):
        self.reads += 1
        return {name: values[index] for name, values in self.values.items()}

    def column(self, name):
        return self.values[name]

    def where(self, index, column):
        return f"a.csv, line {index + 2}, column {column!r}"

    def __repr__(self):
        return f"Rows({self.values})"


TEXT = Column("text", "text")


def classify(targets, *, kind="class", **options):
    source = Rows(text=[f"text {i}" for i in range(len(targets))], targets=targets)
    return make_examples(source, (TEXT, Column("targets", kind)), **options)


# --- what examples are ----------------------------------------------------------------
def test_an_example_has_its_fields_and_where_it_stands():
    source = Rows(text=["so bad", b"so good"], other=[1, 2], targets=["no", "yes"])
    examples = make_examples(source, (TEXT, Column("targets", "class")))
    assert isinstance(examples, Source)
    assert len(examples) == 2
    assert examples.columns == ("text", "targets")
    assert examples[1] == {
        "text": "so good",
        "targets": 1,
        "id": "a.csv, line 3, column 'targets'",
    }
    assert examples[1]["targets"].dtype == np.int32
    assert examples.column("text") == ["so bad", "so good"]
    assert examples.column("targets") == [0, 1]
    assert examples.where(0, "text") == "a.csv, line 2, column 'text'"
    assert examples.skipped == ()
    assert [row["text"] for row in pickle.loads(pickle.dumps(examples))] == [
        "so bad",
        "so good",
    ]


def test_texts_are_read_when_asked_for_and_not_kept():
    source = Rows(text=["a", "b", "c"], targets=[0, 1, 0])
    examples = make_examples(source, (TEXT, Column("targets", "class")))
    assert source.reads == 0  # checked by column
    source.values["text"] = ["x", "y", "z"]
    assert examples[2]["text"] == "z"
    assert source.reads == 1


def test_an_id_is_the_rows_own_where_it_has_one():
    source = Rows(text=["a", "b", "c"], id=[7, "q", None])
    examples = make_examples(source, (TEXT,))
    assert [row["id"] for row in examples] == ["7", "q", "a.csv, line 4, column 'text'"]


def test_repr_is_of_all_that_an_example_depends_on():
    def text(labels=("a", "b", "a"), names=None, kind="class"):
        return repr(classify(list(labels), class_names=names, kind=kind))

    assert text() == text(names=["a", "b"])
    different = [
        text(),
        text(labels=("a", "b", "b")),
        text(names=["b", "a"]),
        text(names=["a", "b", "c"]),
        text(kind="classes"),
    ]
    assert len(set(different)) == len(different)


def test_targets_may_be_absent():
    source = Rows(text=["a", "b"])
    optional = (TEXT, Column("targets", "class", optional=True))
    needed = (TEXT, Column("targets", "class"))
    for examples in (
        make_examples(source, optional),
        make_examples(source, needed, need_targets=False),
    ):
        assert examples.targets is None
        assert examples[0] == {"text": "a", "id": "a.csv, line 2, column 'text'"}
        assert examples.class_names == ()
    names = make_examples(source, optional, class_names=["x", "y"]).class_names
    assert names == ("x", "y")
    with pytest.raises(InputError, match=r"columns \['text'\]; \['targets'\] are abs"):
        make_examples(source, needed)
    with pytest.raises(InputError, match=r"\['text'\] are absent.*columns = "):
        make_examples(Rows(targets=["a"]), needed, need_targets=False)


# --- classes --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("labels", "given", "names", "targets"),
    [
        (["spam", "ham ", "spam"], None, ("ham", "spam"), [1, 0, 1]),
        (["10", "9", "-1"], None, ("-1", "9", "10"), [2, 1, 0]),
        ([10, 9, 10], None, ("9", "10"), [1, 0, 1]),
        ([True, False], None, ("False", "True"), [1, 0]),
        ([b"b", b"a"], None, ("a", "b"), [1, 0]),
        (np.array([1.0, 0.0]), None, ("0", "1"), [1, 0]),
        (["10", "9", "x"], None, ("10", "9", "x"), [0, 1, 2]),
        (["b", "a"], ["b", "a", "c"], ("b", "a", "c"), [0, 1]),  # one is in no row
        (["1", "0"], ["no", "yes"], ("no", "yes"), [1, 0]),  # ids of names
        ([1, 0], ["no", "yes"], ("no", "yes"), [1, 0]),
        (["1", "2"], ["2", "1"], ("2", "1"), [1, 0]),  # names, though numbers
        ([1, 2], ["2", "1"], ("2", "1"), [1, 0]),
        (["nan", "b"], ["b", "nan"], ("b", "nan"), [1, 0]),
    ],
)
def test_classes_are_found_or_given(labels, given, names, targets):
    examples = classify(labels, class_names=given)
    assert examples.class_names == names
    assert examples.targets.tolist() == targets
    assert examples.targets.dtype == np.int32


@pytest.mark.parametrize(
    ("labels", "given", "names", "targets"),
    [
        ([["b", "a"], [], ["b"]], None, ("a", "b"), [[1, 1], [0, 0], [0, 1]]),
        (["b,a", "", "b"], None, ("a", "b"), [[1, 1], [0, 0], [0, 1]]),
        ([[1, 0], [], [1]], ["x", "y"], ("x", "y"), [[1, 1], [0, 0], [0, 1]]),
        ([{"b": 1, "a": "0"}, {"b": 0, "a": 0}], None, ("b", "a"), [[1, 0], [0, 0]]),
        ([{"b": 1, "a": 1}], ["a", "c", "b"], ("a", "c", "b"), [[1, 0, 1]]),
    ],
)
def test_several_classes_a_row(labels, given, names, targets):
    examples = classify(labels, kind="classes", class_names=given)
    assert examples.class_names == names
    assert examples.targets.tolist() == targets
    assert examples.targets.dtype == np.float32
    assert examples[0]["targets"].tolist() == targets[0]


def test_columns_of_0_and_1_through_a_source():
    source = ArraySource({"comment": ["a", "b"], "toxic": [1, 1], "insult": [0, 1]})
    columns = {"text": "comment", "targets": ["toxic", "insult"]}
    source = select_columns(source, columns)
    examples = make_examples(source, (TEXT, Column("targets", "classes")))
    assert examples.class_names == ("toxic", "insult")
    assert examples.targets.tolist() == [[1, 0], [1, 1]]
    assert examples[1]["id"] == "row 1, column 'toxic' and 1 more"


def test_columns_of_0_and_1_of_a_csv(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text('comment,toxic,insult,more\n"a, b",1,0,x\nc,0,0,y\nd,0,1,z\n')
    columns = {"text": "comment", "targets": ["insult", "toxic"]}
    fields = (TEXT, Column("targets", "classes"))
    source = select_columns(load_source("csv", str(file)), columns)
    examples = make_examples(source, fields)
    assert examples.class_names == ("insult", "toxic")
    assert examples.targets.tolist() == [[0, 1], [0, 0], [1, 0]]
    assert examples.targets.dtype == np.float32
    file.write_text("comment,toxic,insult\na,1,0\nb,0,x\n")
    source = select_columns(load_source("csv", str(file)), columns)
    with pytest.raises(
        InputError,
        match=r"a.csv, line 3, column 'insult' and 1 more has 'x' for the class 'ins",
    ):
        make_examples(source, fields)


def test_numbers():
    examples = classify(["1.5", " -2", "1e-3"], kind="number")
    np.testing.assert_array_equal(examples.targets, np.float32([1.5, -2, 1e-3]))
    assert examples.targets.dtype == np.float32
    assert examples.class_names == ()


def tag(tags, words=None, **options):
    words = [["w"] * len(row) for row in tags] if words is None else words
    columns = (Column("words", "words"), Column("tags", "tags"))
    return make_examples(Rows(words=words, tags=tags), columns, **options)


def test_tags_are_o_first_and_b_before_i():
    examples = tag([["I-PER", "O"], ["B-PER", "B-LOC", "I-LOC"]])
    assert examples.class_names == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    assert examples.targets is None
    assert [row["tags"].tolist() for row in examples] == [[4, 0], [3, 1, 2]]
    assert examples[0]["tags"].dtype == np.int32
    assert [tags.tolist() for tags in examples.column("tags")] == [[4, 0], [3, 1, 2]]
    assert examples[0]["id"] == "a.csv, line 2, column 'tags'"


@pytest.mark.parametrize(
    ("tags", "names"),
    [
        ([["I-PER", "O", "I-LOC"]], ("O", "I-LOC", "I-PER")),  # IOB1: no B at all
        ([["NOUN", "VERB", "X-Y-Z"]], ("NOUN", "VERB", "X-Y-Z")),  # plain tags
        ([["E-A", "B-A", "S-A", "I-A", "O"]], ("O", "B-A", "I-A", "E-A", "S-A")),
        ([["B-a-b", "I-a-b", "B-a"]], ("B-a", "B-a-b", "I-a-b")),
        ([[0, 10, 9]], ("0", "9", "10")),
    ],
)
def test_other_schemes_of_tags(tags, names):
    assert tag(tags).class_names == names


def test_given_tags_and_their_ids():
    names = ["O", "B-X", "I-X"]
    assert tag([["I-X", "O"]], class_names=names)[0]["tags"].tolist() == [2, 0]
    assert tag([[2, 0]], class_names=names)[0]["tags"].tolist() == [2, 0]


def test_orders():
    assert sort_names(["10", "9", "1"]) == ("1", "9", "10")
    assert sort_tags(["O", "B-B", "I-A", "B-A"]) == ("O", "B-A", "I-A", "B-B")


# --- records --------------------------------------------------------------------------
QUESTION = (
    Column("question", "text"),
    Column("context", "text"),
    Column("answers", "answers", optional=True),
)


def test_questions_and_answers():
    source = Rows(
        id=["q1", "q2"],
        question=["When?", "Who?"],
        context=["In 1815.", "In 1816."],
        answers=[{"text": "1815", "answer_start": 3}, None],
    )
    examples = make_examples(source, QUESTION)
    assert examples[0] == {
        "question": "When?",
        "context": "In 1815.",
        "answers": {"text": ["1815"], "answer_start": [3]},
        "id": "q1",
    }
    assert examples[1]["answers"] == {"text": [], "answer_start": []}
    assert examples.targets is None


def test_a_conversation_may_wait_for_its_answer_to_predict():
    asked = [{"role": "user", "content": "hi"}]
    source = Rows(messages=[[*asked, {"role": "assistant", "content": "ho"}], asked])
    columns = (Column("messages", "messages"),)
    with pytest.raises(InputError, match=r"line 3.* has no messages of the role 'assi"):
        make_examples(source, columns)
    examples = make_examples(source, columns, need_targets=False)
    assert examples[1]["messages"] == asked
    blank = Rows(messages=[[{"role": "assistant", "content": " "}]])
    with pytest.raises(InputError, match="has 1 messages of the role 'assistant', all"):
        make_examples(blank, columns)


# --- bad rows -------------------------------------------------------------------------
HEADER = "If it is the name of the column, set header to True"
BAD = {
    "no label": (["a", " ", "b"], {}, "line 3, column 'targets' has no label"),
    "no label, with names": (
        ["a", "", "b"],
        {"class_names": ["a", "b"]},
        "line 3, column 'targets' has no label",
    ),
    "NaN": ([1.0, float("nan"), 0.0], {}, "line 3, column 'targets' has no label"),
    "NaN as text": (["a", "NaN"], {}, "line 3, .* has the label 'NaN', which often"),
    "unknown label": (
        ["a", "c"],
        {"class_names": ["a", "b"]},
        r"line 3, .*has the label 'c'; expected one of \['a', 'b'\]\. Correct",
    ),
    "id out of range": (
        ["0", "2"],
        {"class_names": ["a", "b"]},
        r"line 3, .*label '2'; expected one of \['a', 'b'\], or their ids 0 to 1",
    ),
    "no label of GLUE": ([0, -1], {"class_names": ["a", "b"]}, "-1 often marks"),
    "a name among ids": (
        ["0", "z"],
        {"class_names": ["a", "b"]},
        r"line 3, .*label 'z'; expected one of \['a', 'b'\], or their ids",
    ),
    "an id among names": (
        ["a", "1"],
        {"class_names": ["a", "b"]},
        r"line 3, .*label '1'; expected one of \['a', 'b'\]\. Correct",
    ),
    "header as a row": (
        ["label", "0", "1"],
        {},
        f"line 2, .*label 'label', while all others are whole numbers. {HEADER}",
    ),
    "header as a row, with names": (
        ["label", "0", "1"],
        {"class_names": ["a", "b"]},
        f"line 2, .*label 'label'; expected one of .*{HEADER}",
    ),
    "header as a number": (
        ["score", "0.5", "1"],
        {"kind": "number"},
        f"line 2, .*holds 'score', which is no number. {HEADER}",
    ),
    "mixed classes": ([1, "0"], {}, "line 3, .*is a text, '0', while the first row ha"),
    "mixed numbers": (["1", 2.5], {"kind": "number"}, "line 3, .*is a number, 2.5, w"),
    "mixed lists": ([["a"], "b"], {"kind": "classes"}, "line 3, .*first row has list"),
    "one class": (["a", "a"], {}, "line 2, .*have only the class 'a'; expected at le"),
    "no class": ([[], []], {"kind": "classes"}, "line 2, .*all other rows have no cl"),
    "one class of two columns": (
        [{"a": 1}, {"a": 0}],
        {"kind": "classes"},
        "have only the class 'a'",
    ),
    "an unknown class of several": (
        [["a"], ["b", "z"]],
        {"kind": "classes", "class_names": ["a", "b"]},
        "line 3, .*has the label 'z'",
    ),
    "one name": (["a"], {"class_names": ["a"]}, r"\['a'\]; expected at least two"),
    "a name twice": (["a"], {"class_names": ["a", "a"]}, "all different"),
    "a blank name": (["a"], {"class_names": ["a", " "]}, "none of them blank"),
    "names of numbers": (
        ["1"],
        {"kind": "number", "class_names": ["a", "b"]},
        "class_names are given, .*Leave class_names out",
    ),
    "no rows": ([], {}, "has no row to make an example of"),
    "unknown on_error": (["a"], {"on_error": "ignore"}, "'ignore'; expected one of"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_targets_are_refused(name):
    targets, options, message = BAD[name]
    with pytest.raises(InputError, match=message):
        classify(targets, **options)


def test_bad_words_and_tags_are_refused():
    with pytest.raises(InputError, match=r"line 3, .*has 2 tags for 3 words"):
        tag([["O"], ["O", "B-X"]], words=[["a"], ["b", "c", "d"]])
    with pytest.raises(
        InputError,
        match=r"line 3, column 'tags' has at word 2, 'Rome', the tag 'B-CITY'; "
        r"expected one of \['O', 'B-LOC'\]",
    ):
        tag(
            [["O"], ["O", "B-CITY"]],
            words=[["a"], ["in", b"Rome"]],
            class_names=["O", "B-LOC"],
        )
    with pytest.raises(InputError, match="line 2, column 'words' holds 'a b'; expec"):
        tag([["O", "X"]], words=["a b"])
    with pytest.raises(InputError, match="have only the class 'O'"):
        tag([["O"], ["O", "O"]])


def test_bad_answers_are_refused():
    source = Rows(
        question=["When?"] * 2,
        context=["In 1815.", "In 1816."],
        answers=[None, {"text": ["1816"], "answer_start": [4]}],
    )
    with pytest.raises(
        InputError, match=r"line 3, column 'answers' has the answer '18"
    ):
        make_examples(source, QUESTION)
    source.values["context"] = ["In 1815.", ""]
    with pytest.raises(InputError, match="line 3, column 'context' holds no text"):
        make_examples(source, QUESTION)


def test_the_first_bad_row_is_named_and_all_are_counted():
    targets = ["a", "b", "a", "", "b"]
    source = Rows(text=["t", "t", "t", "t", ""], targets=targets)
    with pytest.raises(InputError) as caught:
        make_examples(source, (TEXT, Column("targets", "class")))
    assert str(caught.value) == (
        "a.csv, line 5, column 'targets' has no label. Fill it in, or remove the row. "
        '2 rows of 5 cannot be used; on_error="skip" leaves such rows out.'
    )


def test_many_classes_are_not_all_listed():
    names = [f"class {i}" for i in range(1000)]
    with pytest.raises(InputError, match="'class 19', … 1000 in all") as caught:
        classify(["x"], class_names=names)
    assert "class 20" not in str(caught.value)


# --- rows that are skipped ------------------------------------------------------------
def test_bad_rows_are_left_out_with_a_message_each():
    source = Rows(
        text=["t0", "t1", " ", "t3", "t4", "", "t6"],
        targets=["a", "", "", "b", "NaN", "only here", "a"],
    )
    columns = (TEXT, Column("targets", "class"))
    with pytest.raises(InputError, match="4 rows of 7 cannot be used, which is too ma"):
        make_examples(source, columns, on_error="skip")
    source.values = {
        name: values + values[:1] * 2 for name, values in source.values.items()
    }
    examples = make_examples(source, columns, on_error="skip")
    assert len(examples) == 5
    assert examples.class_names == ("a", "b")  # of the rows that are kept
    assert examples.targets.tolist() == [0, 1, 0, 0, 0]
    assert examples.column("text") == ["t0", "t3", "t6", "t0", "t0"]
    assert examples[2]["text"] == "t6"
    assert examples[2]["id"] == "a.csv, line 8, column 'targets'"
    assert [re.search(r"line (\d+)", message)[1] for message in examples.skipped] == [
        "3",
        "4",
        "6",
        "7",
    ]
    assert "column 'text' holds no text" in examples.skipped[1]  # one message a row


def test_unknown_labels_and_tags_are_skipped_too():
    examples = classify(["a", "z", "b"], class_names=["a", "b"], on_error="skip")
    assert examples.targets.tolist() == [0, 1]
    assert len(examples.skipped) == 1
    tagged = tag([["O"], ["Z"], ["B"]], class_names=["O", "B"], on_error="skip")
    assert [row["tags"].tolist() for row in tagged] == [[0], [1]]
    assert "the tag 'Z'" in tagged.skipped[0]


def test_nothing_is_left():
    with pytest.raises(InputError, match="2 rows of 2 cannot be used"):
        classify(["", ""], on_error="skip")


def test_a_half_may_be_skipped_and_no_more():
    assert len(classify(["a", "", "b", ""], on_error="skip")) == 2
    with pytest.raises(InputError, match="3 rows of 5"):
        classify(["a", "", "b", "", ""], on_error="skip")


# --- all kinds ------------------------------------------------------------------------
def test_images_are_read_only_when_asked_for():
    class Pictures(Rows):
        def __getitem__(self, index):
            return {
                **super().__getitem__(index),
                "image": np.zeros((2, 2, 3), np.uint8),
            }

    source = Pictures(image=["a/0.png", "b/0.png"], targets=["a", "b"])
    columns = (Column("image", "image"), Column("targets", "class"))
    examples = make_examples(source, columns)
    assert examples.column("image") == ["a/0.png", "b/0.png"]
    assert examples[0]["image"].shape == (2, 2, 3)


def test_kinds_with_classes_are_encoded():
    for name, kind in KINDS.items():
        assert kind.order is None or kind.encode is not None, name
        assert kind.encode is None or kind.is_target, name


def test_real_reviews(shared_data):
    source = load_source("tsv", str(shared_data / "sst2" / "dev.tsv"))
    source = select_columns(source, {"text": 0, "targets": 1})
    columns = (TEXT, Column("targets", "class"))
    examples = make_examples(source, columns, class_names=["negative", "positive"])
    assert np.bincount(examples.targets).tolist() == [428, 444]
    assert examples[0]["id"] == "dev.tsv, line 1, column '1'"


def test_real_entities(shared_data, tmp_path):
    lines = (shared_data / "wikiann-en" / "dev.txt").read_text("utf-8").split("\n")
    (tmp_path / "dev.txt").write_text("\n".join(lines[:4000]), "utf-8")
    source = load_conll(tmp_path / "dev.txt", prefix="en:")
    columns = (Column("words", "words"), Column("tags", "tags"))
    examples = make_examples(source, columns)
    assert examples.class_names == (
        "O",
        *(f"{prefix}-{kind}" for kind in ("LOC", "ORG", "PER") for prefix in "BI"),
    )


def test_real_answers_stand_in_their_contexts(shared_data):
    source = load_squad(shared_data / "xquad" / "xquad.en.json")
    examples = make_examples(source, QUESTION)
    assert len(examples) == 1190
    answers, context = examples[7]["answers"], examples[7]["context"]
    (text,), (start,) = answers["text"], answers["answer_start"]
    assert context[start : start + len(text)] == text
