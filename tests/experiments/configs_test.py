# SPDX-License-Identifier: Apache-2.0
"""Every config of a task of its own, from tiny files to predictions of what it left."""

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import jft
from experiments import finetune, predict, probe
from jft.tasks import get_task
from tests.experiments import tiny_data
from tests.experiments.bad_input_test import assert_refused

ROOT = Path(__file__).parents[2]
# a run of few steps and few shapes
SHORT = [
    "train.num_steps=4",
    "evals.eval_every_steps=4",
    "checkpoint.save_every_steps=4",
    "data.num_lengths=1",
]
LLAMA = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
         "num_attention_heads": 2, "num_key_value_heads": 1,
         "max_position_embeddings": 256, "tie_word_embeddings": True}  # fmt: skip
MARIAN = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1,
          "encoder_attention_heads": 2, "decoder_attention_heads": 2,
          "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
          "max_position_embeddings": 64}  # fmt: skip
VIT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
       "intermediate_size": 32, "image_size": 16, "patch_size": 8,
       "num_channels": 3}  # fmt: skip


def any_answer(lines: list[dict[str, Any]]) -> None:
    """Nothing more is known of the answers of a model that has learned nothing."""
    del lines


def check_classes(lines: list[dict[str, Any]]) -> None:
    for line in lines:
        assert sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert line["probability"] == max(line["probabilities"].values())


def check_tags(lines: list[dict[str, Any]]) -> None:
    assert [line["words"] for line in lines] == [["a", "good", "film"], ["casts"]]
    for line in lines:
        assert len(line["tags"]) == len(line["words"])
        assert set(line["tags"]) <= {"O", "B-ORG", "B-WORK"}


def check_answers(lines: list[dict[str, Any]]) -> None:
    for line in lines:
        assert line["answer"]
        assert line["answer"] in line["context"]


def check_perplexity(lines: list[dict[str, Any]]) -> None:
    assert all(line["perplexity"] > 1 for line in lines)


def check_similarity(lines: list[dict[str, Any]]) -> None:
    assert all(-1 <= line["similarity"] <= 1 for line in lines)
    assert lines[0]["similarity"] == pytest.approx(1, abs=1e-5)  # of the same text


@dataclass(frozen=True, kw_only=True)
class Case:
    """How a config is run on a small scale, and what is asked of what it leaves."""

    write: Callable[[Path], Path] | None = None  # the data; None: it brings its own
    arguments: str = ""  # besides quicktest
    from_scratch: bool = False  # else from the small BERT
    overrides: tuple[str, ...] = ()
    examples: tuple[int, int, int]  # of train, validation and test
    rows: tuple[int, int, int] | None = None  # of tokens, where they are others
    class_names: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()  # of predict
    objects: tuple[Mapping[str, Any], ...] = ()  # of a .jsonl file for it
    answers: int = 2
    answer: str  # what predict adds to what was asked
    check: Callable[[list[dict[str, Any]]], None] = any_answer


CASES = {
    "chat_sft": Case(
        from_scratch=True,
        overrides=(
            f"model.model_config={LLAMA}",
            "model.tokenizer_options.vocab_size=300",
        ),
        examples=(52, 7, 6),
        flags=("--texts=What is jft?", "--texts=Hello"),
        answer="written",
    ),
    "clothing": Case(
        write=tiny_data.write_photos,
        from_scratch=True,
        overrides=(f"model.model_config={VIT}",),
        examples=(24, 8, 8),
        class_names=("shirt", "skirt"),
        flags=("--images={data}/test/shirt", "--images={data}/test/skirt/test-0.jpg"),
        answers=5,
        answer="class",
        check=check_classes,
    ),
    "domain_lm": Case(
        write=tiny_data.write_sst2,
        examples=(64, 16, 16),
        flags=("--texts=a good film", f"--texts={'a bad plot ' * 40}"),
        answer="perplexity",
        check=check_perplexity,
    ),
    "few_shot": Case(
        write=tiny_data.write_shots,
        overrides=(
            "data.split_sizes={'train': 4, 'validation': 3, 'test': 4}",
            "data.task_options.pairs_per_example=4",
        ),
        examples=(32, 12, 16),
        flags=("--pairs", "--texts=good film\tgood film", "--texts=bad\tgreat film"),
        answer="similarity",
        check=check_similarity,
    ),
    "multi30k_translate": Case(
        write=tiny_data.write_translations,
        from_scratch=True,
        overrides=(
            f"model.model_config={MARIAN}",
            "model.tokenizer_options.vocab_size=60",
            "evals.generation.max_new_tokens=6",
        ),
        examples=(40, 8, 8),
        flags=("--texts=a good film", "--texts=a plot"),
        answer="written",
    ),
    "own": Case(
        write=tiny_data.write_reviews,
        arguments="source=csv",
        overrides=("data.columns.text=subject", "data.columns.targets=folder"),
        examples=(48, 6, 6),
        class_names=("negative", "positive"),
        flags=("--texts=a good film", "--texts=awful"),
        answer="class",
        check=check_classes,
    ),
    "wikiann_ner": Case(
        write=tiny_data.write_tagged,
        examples=(40, 12, 12),
        class_names=("O", "B-ORG", "B-WORK"),
        flags=("--texts=a good film", "--texts=casts"),
        answer="tags",
        check=check_tags,
    ),
    "xquad_qa": Case(
        write=tiny_data.write_questions,
        overrides=("data.task_options.stride=8",),
        examples=(16, 2, 6),
        rows=(22, 2, 6),
        objects=(
            {"question": "good film", "context": "a plot great cast"},
            {"question": "bad", "context": "a great plot " * 20},
        ),
        answer="answer",
        check=check_answers,
    ),
}
# in finetune_test, forgetting_test and text_test
ELSEWHERE = {"digits", "forgetting", "letters", "sst2"}


def test_every_config_is_run_here_or_elsewhere():
    names = {path.stem for path in (ROOT / "configs").glob("*.py")}
    assert names - {"__init__", "common"} == {*CASES, *ELSEWHERE}


@dataclass(frozen=True)
class Finished:
    """A finished run. Only read it."""

    workdir: Path
    data: Path | None
    out: str
    summary: dict[str, Any]

    @property
    def export(self) -> Path:
        return self.workdir / "export"


@pytest.fixture(scope="session")
def finished(call, tiny_bert, tmp_path_factory):
    """A function: the run of a config, made once."""

    @functools.cache
    def make(name):
        case = CASES[name]
        folder = tmp_path_factory.mktemp(name)
        data = case.write(folder) if case.write else None
        arguments = ["quicktest", *filter(None, [case.arguments])]
        overrides = ["data.global_batch_size=8", *SHORT]
        if not case.from_scratch:
            overrides.append(f"model.pretrained={tiny_bert}")
            overrides.append("data.max_length=32")
        if data is not None:
            overrides.append(f"data.path={data}")
        overrides += case.overrides
        flags = [
            f"--config={ROOT}/configs/{name}.py:{','.join(arguments)}",
            *(f"--config.{override}" for override in overrides),
        ]
        workdir = folder / "run"
        result = call(finetune, *flags, f"--workdir={workdir}")
        assert result.status == 0, result.err
        summary = json.loads((workdir / "summary.json").read_text())
        return Finished(workdir, data, result.out, summary)

    return make


by_name = pytest.mark.parametrize("name", CASES)


@by_name
def test_the_quicktest_ends_with_the_figures_of_the_run(name, finished):
    run = finished(name)
    summary, config = run.summary, run.summary["config"]
    task = get_task(config["data"]["task"])
    assert summary["steps"] == 4
    assert set(summary["test"]) == {"loss", "examples", *task.default_metrics}
    assert all(np.isfinite(value) for value in summary["test"].values())
    # what the config left to the task
    assert config["evals"]["metrics"] == [*task.default_metrics]
    assert config["evals"]["metric"] == task.default_metrics[0]
    assert summary["best"]["step"] == 4
    programs = summary["programs"]
    assert programs["train"] == 1
    assert programs["evaluate"] in (1, 2)  # the longest text of two splits
    table = {line.partition("  ")[0]: line for line in run.out.splitlines()}
    assert "programs compiled" in table
    assert f"test {task.default_metrics[0]}" in table


@by_name
def test_the_summary_knows_the_data(name, finished):
    run = finished(name)
    case, facts = CASES[name], run.summary["data"]
    assert tuple(facts["examples"].values()) == case.examples
    assert tuple(facts["rows"].values()) == (case.rows or case.examples)
    assert not any(facts["skipped"].values())
    assert facts["truncated"] == {"train": 0, "validation": 0, "test": 0}
    words = [*run.out.splitlines()[2].split(), "train"]
    assert words[:2] == ["train", str(case.examples[0])]
    padding = facts["padding"]
    if run.summary["config"]["data"]["task"].startswith("image"):
        assert padding["all_tokens"] == 0
        assert "of the tokens" not in run.out
        return
    real, every = padding["real_tokens"], padding["all_tokens"]
    assert 0 < padding["share"] == 1 - real / every < 0.7
    (shape,) = padding["shapes"]
    assert shape["batches"] == 4
    assert every == 4 * 8 * sum(shape["lengths"].values())
    assert f"{padding['share']:.1%} of the tokens" in run.out


@by_name
def test_the_export_loads_and_transformers_misses_nothing(name, finished):
    run = finished(name)
    model = jft.load(run.export)
    task = get_task(run.summary["config"]["data"]["task"])
    assert model.task == task.head
    assert (
        sum(x.size for x in jax.tree.leaves(model.params))
        == (run.summary["params"]["total"])
    )
    card = (run.export / "README.md").read_text()
    assert f'pipeline_tag: "{task.pipeline}"' in card

    assert (run.export / "modules.json").exists() == (name == "few_shot")

    pytest.importorskip("torch", reason="torch is in the extra parity")
    import transformers

    (architecture,) = model.config["architectures"]
    theirs, report = getattr(transformers, architecture).from_pretrained(
        run.export, output_loading_info=True
    )
    assert not any(report.values()), report
    if task.has_classes:
        names = tuple(theirs.config.id2label[i] for i in range(len(model.class_names)))
        assert names == model.class_names == CASES[name].class_names
    if task.reads == "text":
        tokenizer = transformers.AutoTokenizer.from_pretrained(run.export)
        text = "a good film"
        assert tokenizer(text)["input_ids"] == model.processor(text)["input_ids"]


def ask(call, run, case, tmp_path, *more):
    """The lines that predict writes."""
    flags = [flag.format(data=run.data) for flag in case.flags]
    if case.objects:
        lines = "".join(f"{json.dumps(one)}\n" for one in case.objects)
        (tmp_path / "asked.jsonl").write_text(lines)
        flags.append(f"--inputs={tmp_path / 'asked.jsonl'}")
    result = call(predict, *flags, *more)
    assert result.status == 0, result.err
    return [json.loads(line) for line in result.out.splitlines()]


@by_name
def test_predict_writes_what_the_task_writes(name, call, finished, tmp_path):
    run, case = finished(name), CASES[name]
    more = [f"--model={run.export}", "--batch_size=4"]
    if case.answer == "written":
        more.append("--max_new_tokens=6")
    lines = ask(call, run, case, tmp_path, *more)
    assert len(lines) == case.answers
    for line in lines:
        assert case.answer in line
        assert {"text", "words", "question", "messages", "file"} & set(line)
    case.check(lines)


# config -> what is asked of its export, and the words of the refusal
REFUSED = {
    "no JSON": ("xquad_qa", "{", ["asked.jsonl, line 1 is no JSON"]),
    "no object": ("xquad_qa", "[1]", ["asked.jsonl, line 1", "[1]"]),
    "half a question": (
        "xquad_qa",
        '{"question": "what"}',
        ["['question']", "lacks ['context']", "'question_answering'"],
    ),
    "blank question": (
        "xquad_qa",
        '{"question": " ", "context": "a film"}',
        ["'question'", "no text"],
    ),
    "names that differ": (
        "own",
        '{"text": "a"}\n{"text": "b", "text_pair": "c"}',
        ["[['text'], ['text', 'text_pair']]", "all the same"],
    ),
    "words in one text": ("wikiann_ner", '{"words": "a b"}', ["'words'", "'a b'"]),
    "no turn": ("chat_sft", '{"messages": []}', ["'messages'"]),
    "nobody": (
        "chat_sft",
        '{"messages": [{"content": "a"}]}',
        ["'messages'", "role"],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_predict_refuses(name, call, finished, tmp_path):
    config, asked, words = REFUSED[name]
    (tmp_path / "asked.jsonl").write_text(asked)
    argv = [f"--model={finished(config).export}", f"--inputs={tmp_path}/asked.jsonl"]
    assert_refused(call(predict, *argv), *words)


def test_a_run_answers_as_its_export_does(call, finished, tmp_path):
    """The settings of the run are its config's, those of a folder are given."""
    run, case = finished("multi30k_translate"), CASES["multi30k_translate"]
    more = ("--max_new_tokens=6", "--max_length=64")
    by_folder = ask(call, run, case, tmp_path, f"--model={run.export}", *more)
    assert by_folder == ask(call, run, case, tmp_path, f"--workdir={run.workdir}")


def test_the_few_are_classified_by_their_embeddings(call, finished):
    run = finished("few_shot")
    file = run.workdir.parent / "here.py"
    file.write_text(
        "from configs import few_shot\n"
        "def get_config():\n"
        "    config = few_shot.get_config('shots=4')\n"
        f"    config.data.path = {str(run.data)!r}\n"
        "    config.data.split_sizes = {'train': 4, 'validation': 3, 'test': 8}\n"
        "    config.data.max_length = 32\n"
        "    config.train.loss_options = {'objective': 'cosine'}\n"
        "    return config\n"
    )
    result = call(probe, f"--model={run.export}", f"--config={file}")
    assert result.status == 0, result.err
    rows = [line.split() for line in result.out.splitlines()[2:]]
    assert [(row[0], row[1]) for row in rows] == [("validation", "6"), ("test", "16")]
    assert all(0 <= float(row[2]) <= 1 for row in rows)
