# SPDX-License-Identifier: Apache-2.0
"""Faults of the user's data and of what is asked of it: said by file, row, column."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import pytest

import jft
from experiments import data_report, dataset, finetune
from jft.config import apply_overrides, load_config_file, resolve
from tests.experiments.bad_input_test import assert_refused, assert_untrained
from tests.experiments.conftest import BERT
from tests.tiny_tokenizer import make_tokenizer

ROOT = Path(__file__).parents[2]
Files = dict[str, str | bytes]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Files, how they are read, and what the message must hold."""

    files: Files
    source: str = "csv"
    task: str = "text_classification"
    path: str = "mails.csv"  # below the folder of the files
    overrides: Sequence[str] = ()
    words: Sequence[str]


def table(
    change: dict[int, str] | None = None,
    *,
    rows: int = 24,
    header: str = "text,targets",
) -> str:
    """A csv of mails; ``change`` is of lines, from 1, of which the first is 2."""
    lines = [header, *(f"mail {i},{'spam' if i % 2 else 'ham'}" for i in range(rows))]
    for line, text in (change or {}).items():
        lines[line - 1] = text
    return "".join(f"{line}\n" for line in lines)


def numbers(change: dict[int, str]) -> str:
    return table({i: f"mail {i},{i / 2}" for i in range(2, 26)} | change)


def conll(tag: str) -> str:
    return "".join(f"a O\nfilm B-WORK\nplot {tag}\n\n" for _ in range(24))


def squad(start: int) -> str:
    paragraphs = [
        {
            "context": f"a great film {i}",
            "qas": [
                {
                    "id": f"q{i}",
                    "question": "what",
                    "answers": [{"text": "great", "answer_start": 2 if i else start}],
                }
            ],
        }
        for i in range(24)
    ]
    return json.dumps({"data": [{"title": "films", "paragraphs": paragraphs}]})


def objects(*, change: dict[int, str]) -> str:
    lines = [json.dumps({"text": f"mail {i}", "targets": i % 2}) for i in range(24)]
    for line, text in change.items():
        lines[line - 1] = text
    return "\n".join(lines)


MAILS = {"mails.csv": table()}
SPLITS = [
    "data.split_paths={'train': 'train.csv', 'validation': 'dev.csv', "
    "'test': 'test.csv'}",
    "data.split_sizes={}",
]


def splits(**changes: str) -> Files:
    """Three files of other rows each."""
    files = {
        name: table(rows=12).replace("mail", name) for name in ("train", "dev", "test")
    }
    return {f"{name}.csv": text for name, text in (files | changes).items()}


def with_ids(**first: str) -> Files:
    """Three files with ids and persons; ``first`` replaces the first row of one."""
    files = {}
    for name in ("train", "dev", "test"):
        rows = [
            f"{name} {i},{'ab'[i % 2]},{name}-{i},{name} person {i % 3}"
            for i in range(12)
        ]
        rows[0] = first.get(name, rows[0])
        files[f"{name}.csv"] = "\n".join(["text,targets,id,person", *rows])
    return files


FAULTS = {
    # files
    "missing file": Fault(files={}, words=["mails.csv", "cannot be read"]),
    "no UTF-8": Fault(
        files={"mails.csv": table().encode() + b"\xff,ham\n"},
        words=["mails.csv", "line 26", "UTF-8"],
    ),
    "no row": Fault(files={"mails.csv": "text,targets\n"}, words=["mails.csv"]),
    "missing column": Fault(
        files={"mails.csv": table(header="text,label")},
        words=["['targets']", "['text', 'label']", "columns"],
    ),
    "column that is not there": Fault(
        files=MAILS,
        overrides=["data.columns.text=subject"],
        words=["'subject'", "['text', 'targets']"],
    ),
    "field that the task does not read": Fault(
        files=MAILS,
        overrides=["data.columns.txt=text"],
        words=["data.columns", "['txt']", "'text_pair'"],
    ),
    "wrong delimiter": Fault(
        files={"mails.csv": table().replace(",", ";")},
        words=["['text;targets']", "['text', 'targets'] are absent"],
    ),
    "ragged row": Fault(
        files={"mails.csv": table({7: "mail,ham,spam"})},
        words=["mails.csv", "line 7", "3", "2"],
    ),
    "no JSON": Fault(
        files={"mails.jsonl": objects(change={5: "{"})},
        source="jsonl",
        path="mails.jsonl",
        words=["mails.jsonl", "line 5"],
    ),
    "mixed JSON types": Fault(
        files={"mails.jsonl": objects(change={5: '{"text": "a", "targets": "ham"}'})},
        source="jsonl",
        path="mails.jsonl",
        words=["mails.jsonl, line 5, column 'targets'", "a text", "a number"],
    ),
    "unequal line counts": Fault(
        files={"x.en": "a\nb\nc\n", "x.de": "a\nb\n"},
        source="lines",
        task="sequence_to_sequence",
        path="x",
        overrides=[
            "data.source_options={'files': {'text': '.en', 'target_text': '.de'}}"
        ],
        words=["x.en", "x.de", "3", "2"],
    ),
    # values
    "unknown label": Fault(
        files={"mails.csv": table({9: "mail,spma"})},
        overrides=["data.class_names=['ham','spam']"],
        words=["mails.csv, line 9, column 'targets'", "'spma'", "['ham', 'spam']"],
    ),
    "no label": Fault(
        files={"mails.csv": table({9: "mail,"})},
        words=["mails.csv, line 9, column 'targets'"],
    ),
    "blank text": Fault(
        files={"mails.csv": table({4: " ,ham"})},
        words=["mails.csv, line 4, column 'text'", "no text"],
    ),
    "NaN": Fault(
        files={"mails.csv": numbers({8: "mail,nan"})},
        task="text_regression",
        words=["mails.csv, line 8, column 'targets'", "nan"],
    ),
    "no number": Fault(
        files={"mails.csv": numbers({8: "mail,many"})},
        task="text_regression",
        words=["mails.csv, line 8, column 'targets'", "'many'"],
    ),
    "label outside the tags": Fault(
        files={"tags.txt": conll("B-PLOT")},
        source="conll",
        task="token_classification",
        path="tags.txt",
        overrides=["data.columns.targets=tags", "data.class_names=['O','B-WORK']"],
        words=["tags.txt, line 1", "'B-PLOT'", "['O', 'B-WORK']"],
    ),
    "answer that is not there": Fault(
        files={"films.json": squad(5)},
        source="squad",
        task="question_answering",
        path="films.json",
        words=["films.json, question 'q0'", "'great'", "5"],
    ),
    # splits
    "class absent from train": Fault(
        files=splits(dev=table({3: "mail,eggs"}, rows=12)),
        path="",
        overrides=SPLITS,
        words=["dev.csv, line 3, column 'targets'", "'eggs'", "['ham', 'spam']"],
    ),
    "named class absent from train": Fault(
        files=splits(dev=table({3: "mail,eggs"}, rows=12)),
        path="",
        overrides=[*SPLITS, "data.class_names=['eggs','ham','spam']"],
        words=["'train'", "'eggs'", "dev.csv, line 3, column 'targets'"],
    ),
    "one class only": Fault(
        files={"mails.csv": table().replace("spam", "ham")},
        words=["'ham'", "two"],
    ),
    "fewer than a batch": Fault(
        files={"mails.csv": table(rows=8)},
        words=["'train' has 6", "data.global_batch_size 8"],
    ),
    "an id in two files": Fault(
        files=with_ids(test="mail,a,train-3,someone"),
        path="",
        overrides=SPLITS,
        words=[
            "'train' and 'test'",
            "'train-3'",
            "train.csv, line 5",
            "test.csv, line 2",
        ],
    ),
    "a group in two files": Fault(
        files=with_ids(dev="mail,a,dev-99,train person 1"),
        path="",
        overrides=[*SPLITS, "data.split_group=person"],
        words=["'train' and 'validation'", "'train person 1'", "dev.csv, line 2"],
    ),
    "the same file twice": Fault(
        files=splits(),
        path="",
        overrides=[SPLITS[0].replace("dev.csv", "test.csv"), SPLITS[1]],
        words=["'test' and 'validation'", "test.csv"],
    ),
    # what is asked of them
    "more than half is skipped": Fault(
        files={"mails.csv": table({i: f" ,{i}" for i in range(2, 20)})},
        overrides=["data.on_error=skip"],
        words=["14 rows of 19", "mails.csv, line 2, column 'text'"],
    ),
}
# task -> what is asked of it, and the words of the refusal
REQUESTS = {
    "task": ("letters", [], ["'letters'", "'text_classification'"]),
    "task option": (
        "text_classification",
        ["data.task_options.stride=3"],
        ["data.task_options", "['stride']", "'text_classification'"],
    ),
    "task option of another type": (
        "masked_lm",
        ["data.task_options.mask_rate=often"],
        ["data.task_options.mask_rate is 'often' (str)", "a number"],
    ),
    "a cache where all moves": (
        "text_classification",
        ["train.cache.use=on"],
        ["train.cache.use", "the lowest layer moves from the start"],
    ),
    "a cache without room": (
        "text_classification",
        [
            "train.cache.use=on",
            "train.cache.max_gigabytes=1e-9",
            "optim.unfreeze.method=top_down",
        ],
        ["train.cache.max_gigabytes is 1e-09", "one boundary"],
    ),
    "pairs where there are none": (
        "text_classification",
        ["data.task_options.pairs_per_example=4"],
        ["data.task_options", "['pairs_per_example']"],
    ),
    "loss option": (
        "text_regression",
        ["train.loss_options.label_smoothing=0.1"],
        ["train.loss_options", "['label_smoothing']"],
    ),
    "loss option of another type": (
        "text_classification",
        ["train.loss_options.focal_gamma=much"],
        ["train.loss_options.focal_gamma", "'much' (str)", "a number"],
    ),
    "loss option out of range": (
        "text_classification",
        ["train.loss_options.label_smoothing=1"],
        ["train.loss_options.label_smoothing is 1", "below 1"],
    ),
    "objective": (
        "sentence_similarity",
        ["train.loss_options.objective=triplet"],
        ["'triplet'", "['cosine', 'in_batch']"],
    ),
    "class weights for others": (
        "text_classification",
        ["train.loss_options.class_weights=[1.0,2.0,3.0]"],
        ["class_weights", "(1.0, 2.0, 3.0)", '"balanced" or 2', "['ham', 'spam']"],
    ),
    "class weights by another name": (
        "text_classification",
        ["train.loss_options.class_weights=equal"],
        ["class_weights", "'equal'", '"balanced" or 2'],
    ),
    "metric of another task": (
        "text_regression",
        ["evals.metrics=['accuracy']"],
        ["['accuracy']", "'pearson'"],
    ),
    "packed classes in microbatches": (
        "text_classification",
        ["data.batching=pack", "train.grad_accum_steps=2"],
        ["data.batching", "train.grad_accum_steps 2", '"length"'],
    ),
    "packed classes of a model that reads the last token": (
        "text_classification",
        [
            "data.batching=pack",
            "model.pretrained=None",
            "model.model_type=gpt2",
            "model.model_config={'n_embd': 16, 'n_layer': 1, 'n_head': 2}",
            "model.tokenizer={bert}",
        ],
        ["data.batching", "gpt2", "'text_classification'", '"length"'],
    ),
    "packed by a model that mixes texts": (
        "masked_lm",
        [
            "data.batching=pack",
            "model.pretrained=None",
            "model.model_type=deberta-v2",
            "model.model_config={'hidden_size': 16, 'num_hidden_layers': 1, "
            "'num_attention_heads': 2, 'intermediate_size': 32, "
            "'conv_kernel_size': 3}",
            "model.tokenizer={bert}",
        ],
        ["data.batching", "deberta-v2", '"length"'],
    ),
    "dropouts that cannot be compared": (
        "sentence_similarity",
        ["train.r_drop=1.0"],
        ["train.r_drop", "'sentence_similarity'"],
    ),
    "teacher that cannot be compared": (
        "sentence_similarity",
        ["train.teacher.model={bert}"],
        ["train.teacher", "'sentence_similarity'"],
    ),
    "parts of a loss that has none": (
        "text_classification",
        ["train.loss_chunk=16"],
        ["train.loss_chunk is 16", "'text_classification'", "None"],
    ),
    "parts of logits that are compared": (
        "masked_lm",
        ["train.loss_chunk=16", "train.r_drop=1.0"],
        ["train.loss_chunk is 16", "train.r_drop", "0"],
    ),
    "absent teacher": (
        "text_classification",
        ["train.teacher.model=/no/teacher"],
        ["/no/teacher"],
    ),
    "teacher of other classes": (
        "text_classification",
        ["train.teacher.model={teacher}"],
        ["train.teacher.model", "['a', 'b']", "['ham', 'spam']"],
    ),
    "teacher of images": (
        "text_classification",
        ["train.teacher.model=jft:letters_vit"],
        ["'sequence_classification'", "['image_classification']"],
    ),
    "tokenizer that is none": (
        "text_classification",
        ["model.pretrained=None", "model.model_type=bert", "model.tokenizer={empty}"],
        ["model.tokenizer", "empty", "tokenizer.json"],
    ),
    "tokenizer option": (
        "text_classification",
        [
            "model.pretrained=None",
            "model.model_type=bert",
            "model.tokenizer=train",
            "model.tokenizer_options={'kind': 'wordpiece', 'size': 9}",
        ],
        ["model.tokenizer_options", "['size']", "'vocab_size'"],
    ),
}


def run_own(call, tmp_path, bert, task, source, path, overrides):
    """Run the config of any task, with all that tests share."""
    return call(
        finetune,
        f"--config={ROOT}/configs/own.py:quicktest,task={task},source={source},"
        f"path={path}",
        f"--config.model.pretrained={bert}",
        "--config.data.global_batch_size=8",
        "--config.data.max_length=32",
        *(f"--config.{override}" for override in overrides),
        f"--workdir={tmp_path / 'run'}",
    )


@pytest.mark.parametrize("name", FAULTS)
def test_data_is_refused(name, call, tiny_bert, tmp_path):
    fault, folder = FAULTS[name], tmp_path / "data"
    folder.mkdir()
    for file, content in fault.files.items():
        raw = content if isinstance(content, bytes) else content.encode()
        (folder / file).write_bytes(raw)
    path = folder / fault.path
    asked = (fault.task, fault.source, path, fault.overrides)
    result = run_own(call, tmp_path, tiny_bert, *asked)
    assert_refused(result, *fault.words)
    assert_untrained(tmp_path / "run")


def test_a_row_is_refused_before_a_model_is_looked_for(call, tmp_path):
    mails, nowhere = tmp_path / "mails.csv", tmp_path / "no model"
    mails.write_text(table({4: "mail,ham,spam"}))
    asked = ("text_classification", "csv", mails, ())
    result = run_own(call, tmp_path, nowhere, *asked)
    assert_refused(result, "mails.csv", "line 4")
    assert nowhere.name not in result.err


def test_rows_that_are_skipped_are_counted_and_told(call, tiny_bert, tmp_path):
    """A line that cannot be read, and rows that the task cannot use."""
    wrong = {4: "mail,ham,spam", 6: " ,ham", 9: "mail,"}
    one_file, three = tmp_path / "mails.csv", splits(dev=table({3: "a,b,c"}, rows=12))
    one_file.write_text(table(wrong, rows=60))
    for file, content in three.items():
        (tmp_path / file).write_text(content)
    short = [
        "data.on_error=skip",
        "data.num_lengths=1",
        "train.num_steps=3",
        "evals.eval_every_steps=3",
        "export.enabled=False",
    ]
    asked = ("text_classification", "csv", one_file, short)
    result = run_own(call, tmp_path, tiny_bert, *asked)
    assert result.status == 0, result.err
    facts = json.loads((tmp_path / "run" / "summary.json").read_text())["data"]
    assert sum(facts["skipped"].values()) == 3
    assert sum(facts["examples"].values()) == 57
    told = " ".join(why for some in facts["skipped_first"].values() for why in some)
    for place in ("line 4", "line 6, column 'text'", "line 9, column 'targets'"):
        assert place in told
    header, _, train, *_ = (line.split() for line in result.out.splitlines())
    assert header[:4] == ["split", "examples", "rows", "skipped"]
    assert train[3] == str(facts["skipped"]["train"])
    # of files of their own each its own
    config = load_config_file(
        f"{ROOT}/configs/own.py:source=csv,path={tmp_path}",
    )[1]
    here = {
        "data.on_error": "skip",
        "data.split_sizes": {},
        "data.split_paths": {
            "train": "train.csv",
            "validation": "dev.csv",
            "test": "test.csv",
        },
    }
    examples = dataset.load_examples(resolve(apply_overrides(config, here)))
    found = data_report.find_skipped(examples)
    assert [count for count, _ in found.values()] == [0, 1, 0]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A classifier of texts of other classes."""
    folder = tmp_path_factory.mktemp("teacher") / "of-a-and-b"
    model = jft.init_model(
        BERT,
        key=jax.random.key(0),
        task="sequence_classification",
        class_names=("a", "b"),
        processor=make_tokenizer(model_max_length=64),
    )
    jft.save(folder, model)
    return folder


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_refused(name, call, tiny_bert, teacher, tmp_path):
    task, overrides, words = REQUESTS[name]
    (tmp_path / "mails.csv").write_text(table())
    (tmp_path / "empty").mkdir()
    places = {"bert": tiny_bert, "teacher": teacher, "empty": tmp_path / "empty"}
    for name, place in places.items():
        overrides = [x.replace(f"{{{name}}}", str(place)) for x in overrides]
    result = run_own(
        call, tmp_path, tiny_bert, task, "csv", tmp_path / "mails.csv", overrides
    )
    assert_refused(result, *words)
    assert_untrained(tmp_path / "run")
