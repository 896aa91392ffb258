# SPDX-License-Identifier: Apache-2.0
"""Questions on passages with their answers, as SQuAD writes them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jft.data.sources.blocks import TextScan
from jft.data.sources.faults import Faults
from jft.data.sources.jsonl import read_json
from jft.data.sources.mapped import FileSource, HeldRecords
from jft.types import InputError


class _Question(NamedTuple):
    title: str
    context: str  # one object for all questions on it
    entry: dict[str, Any]


def load_squad(path: str | Path, *, on_error: str = "error") -> FileSource:
    """Open a file in the JSON of SQuAD 1.1 or 2.0; it is held in memory.

    Whether answers are where they are said to be is for `make_examples` to check.

    Args:
      path: the file, UTF-8; ``.gz`` is unpacked.
      on_error: ``"skip"`` leaves out questions that are errors.

    Returns:
      A source of the columns ``id``, ``title``, ``context``, ``question``, ``answers``;
      the last, ``{"text": [str], "answer_start": [int]}`` with an empty list where
      there is no answer, only if the file has any. Splits by ``title`` share no
      article.

    Raises:
      InputError: if the file is absent, no JSON or not in this form, if a question
        lacks something or has the id of another; names the question.

    Source: P. Rajpurkar et al., "SQuAD: 100,000+ questions for machine comprehension
    of text", 2016, and "Know what you don't know", 2018.
    """
    faults = Faults(on_error)
    scan = TextScan(path)
    data = read_json(scan, expected="one object of SQuAD's form")
    questions = list(_questions(data, scan.path))
    has_answers = any("answers" in question.entry for question in questions)
    ids: set[str] = set()
    records, places = [], []
    for number, question in enumerate(questions, start=1):
        name = question.entry.get("id")
        fault = _fault(question.entry, has_answers) or (
            "has the id of another question. Give each its own." if name in ids else ""
        )
        if fault:
            known = f"question {name!r}" if name else f"question {number}"
            faults.add(f"{scan.path}, {known} (title {question.title!r}) {fault}")
            continue
        ids.add(str(name))
        records.append(_row(question, has_answers))
        places.append(f"{scan.path.name}, question {name!r}")
    faults.check_rows(scan.path, len(records))
    return FileSource(
        HeldRecords(records, places, content=scan.content),
        dict,
        columns=tuple(records[0]),
        kind="SQuAD",
        faults=faults,
    )


def _questions(data: Any, path: Path) -> Iterator[_Question]:
    """Every question of the file, whatever it holds."""
    for number, article in enumerate(_items(data, "data", f"{path}"), start=1):
        where = f"{path}, article {number}"
        paragraphs = _items(article, "paragraphs", where)
        title = str(article.get("title", f"article {number}"))
        for passage, paragraph in enumerate(paragraphs, start=1):
            place = f"{where} (title {title!r}), paragraph {passage}"
            entries = _items(paragraph, "qas", place)
            context = paragraph.get("context")
            if not isinstance(context, str):
                raise InputError(f"{place} has no text as its 'context'. Fill it in.")
            for entry in entries:
                yield _Question(title, context, entry)


def _items(value: Any, key: str, where: str) -> list[dict[str, Any]]:
    """The objects that an object lists under a key."""
    items = value.get(key) if isinstance(value, dict) else None
    if not isinstance(items, list) or not all(isinstance(x, dict) for x in items):
        raise InputError(
            f"{where} has no list of objects under the key {key!r}; expected SQuAD's "
            'form, {"data": [{"title", "paragraphs": [{"context", "qas": [{"id", '
            '"question", "answers": [{"text", "answer_start"}]}]}]}]}.'
        )
    return items


def _fault(entry: dict[str, Any], has_answers: bool) -> str | None:
    for key in ("id", "question"):
        if not isinstance(entry.get(key), str) or not entry[key]:
            return f"has no text under the key {key!r}. Fill it in."
    if not has_answers or (entry.get("is_impossible") and "answers" not in entry):
        return None
    answers = entry.get("answers")
    fits = isinstance(answers, list) and all(
        isinstance(answer, dict)
        and isinstance(answer.get("text"), str)
        and type(answer.get("answer_start")) is int
        for answer in answers
    )
    if not fits:
        return (
            "has no list of answers with 'text' and the whole number 'answer_start', "
            "as others have. Fill it in; an empty list is no answer."
        )
    if answers and entry.get("is_impossible"):
        return "is_impossible, yet has answers. Correct either."
    return None


def _row(question: _Question, has_answers: bool) -> dict[str, Any]:
    title, context, entry = question
    row = {
        "id": entry["id"],
        "title": title,
        "context": context,
        "question": entry["question"],
    }
    if has_answers:
        answers = entry.get("answers", [])
        row["answers"] = {
            key: [answer[key] for answer in answers] for key in ("text", "answer_start")
        }
    return row
