# SPDX-License-Identifier: Apache-2.0
"""Run the scripts in this process, and one run that many tests look at."""

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

import jft
from experiments import finetune, models
from jft.config import load_config_file, resolve, run, run_without_config
from tests.tiny_tokenizer import make_tokenizer

ROOT = Path(__file__).parents[2]
TINY = f"--config={Path(__file__).with_name('tiny.py')}"


def load_tiny() -> Any:
    return resolve(load_config_file(TINY.partition("=")[2])[1])


class Result(NamedTuple):
    """How a script ended."""

    status: int
    out: str
    err: str


@contextlib.contextmanager
def unrendered() -> Iterator[None]:
    """Within it pictures are composed and not drawn: two fifths of a small run.

    tests/evals draws each of them, and ``quicktest`` all those of a run.
    """
    from matplotlib.figure import Figure

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda self, path, **_: Path(path).touch())
        yield


def call_script(script: Any, *argv: Any, rendered: bool = False) -> Result:
    """Run a script as its command line does; anything but an exit is let through."""
    words = [script.__name__, *map(str, argv)]
    out, err = io.StringIO(), io.StringIO()
    rendered = rendered or script is not finetune
    pictures = contextlib.nullcontext() if rendered else unrendered()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pictures:
        try:
            if hasattr(script, "FLAGS"):
                run_without_config(script.main, flag_values=script.FLAGS, argv=words)
            run(script.main, argv=words)
        except SystemExit as end:
            status = end.code
    return Result(status, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def call() -> Callable[..., Result]:
    return call_script


@pytest.fixture(scope="session")
def tiny() -> str:
    """The flag that names the small config."""
    return TINY


@pytest.fixture(scope="session")
def make_base(tmp_path_factory) -> Callable[[int], Path]:
    """Write the small config's model as a Hugging Face folder of three classes."""

    def make(seed: int) -> Path:
        config = {"model_type": "vit", **load_tiny().model.model_config}
        model = jft.init_model(
            config,
            key=jax.random.key(seed),
            class_names=("a", "b", "c"),
            processor=models.processor_config_of(config),
        )
        folder = tmp_path_factory.mktemp("base")
        jft.save(folder, model)
        return folder

    return make


@pytest.fixture(scope="session")
def base(make_base) -> str:
    """The flag that starts the small config from a folder. Only read the folder."""
    return f"--config.model.pretrained={make_base(0)}"


BERT = {
    "model_type": "bert",
    "vocab_size": 15,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory) -> Path:
    """The folder of a small random BERT without a head. Only read it."""
    folder = tmp_path_factory.mktemp("bert") / "tiny-bert"
    model = jft.init_model(
        BERT,
        key=jax.random.key(0),
        task="base",
        processor=make_tokenizer(model_max_length=64),
    )
    jft.save(folder, model)
    return folder


@pytest.fixture(scope="session")
def reviews(tmp_path_factory) -> Path:
    """A folder of reviews as ``sst2``'s: one word of each says what it is."""
    folder = tmp_path_factory.mktemp("data") / "reviews"
    folder.mkdir()
    rng = np.random.default_rng(0)
    words = [("bad", "awful"), ("good", "great")]
    for name, rows in (("train", 96), ("dev", 24), ("test", 24)):
        with (folder / f"{name}.tsv").open("w", encoding="utf-8") as file:
            for row in range(rows):
                label = row % 2
                text = list(rng.choice(["a", "film", "plot", "casts"], 4))
                text.insert(rng.integers(5), rng.choice(words[label]))
                file.write(f"{' '.join(text)}\t{label}\n")
    return folder


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> Path:
    """A finished run of the small config. Only read it."""
    workdir = tmp_path_factory.mktemp("tiny") / "run"
    result = call_script(finetune, TINY, f"--workdir={workdir}")
    assert result.status == 0, result.err
    return workdir


class Quicktest(NamedTuple):
    """A finished run of ``configs/digits.py:quicktest``. Only read its workdir."""

    workdir: Path
    out: str
    summary: dict[str, Any]
    records: list[dict[str, Any]]


@pytest.fixture(scope="session")
def quicktest(tmp_path_factory) -> Quicktest:
    workdir = tmp_path_factory.mktemp("quicktest") / "run"
    result = call_script(
        finetune,
        f"--config={ROOT}/configs/digits.py:quicktest",
        f"--workdir={workdir}",
        f"--config.data.global_batch_size={12 * jax.device_count()}",
        rendered=True,
    )
    assert result.status == 0, result.err
    records = (workdir / "metrics.jsonl").read_text().splitlines()
    return Quicktest(
        workdir,
        result.out,
        json.loads((workdir / "summary.json").read_text()),
        [json.loads(record) for record in records],
    )
