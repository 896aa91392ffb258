# SPDX-License-Identifier: Apache-2.0
"""A run that was killed and repeated ends as one that was not, bit for bit.

``JFT_KILLS=100 python -m pytest tests/experiments/resume_test.py -k kill -s`` makes a
longer campaign of it, compiled as users compile. The number of kills is their seed: the
same number draws the same kills, but for what the clock decides.
"""

import functools
import hashlib
import importlib
import json
import os
import random
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

import jft
from experiments import build
from jft import checkpoint, data
from jft.config import read_config
from tests.experiments import tiny_data

ROOT = Path(__file__).parents[2]
CONFIG = Path(__file__).with_name("resume_config.py")
TEXT_CONFIG = Path(__file__).with_name("resume_text_config.py")
WORKER = Path(__file__).with_name("finetune_worker.py")
NUM_KILLS = int(os.environ.get("JFT_KILLS", "6"))
INTERRUPTED = 75
STEP = "jft.train.compiled_step:CompiledStep.__call__"
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
if "JFT_KILLS" in os.environ:  # else as the rest of the suite: in half of the time
    ENV["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "0"
    ENV.pop("XLA_FLAGS", None)
MODEL = {
    "model_type": "vit",
    "image_size": 8,
    "patch_size": 4,
    "num_channels": 1,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}
PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": False,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5],
    "image_std": [0.5],
    "do_convert_rgb": False,
}

# Where a kill can hurt: (function, how often a run calls it at most)
IN_SAVES = (
    ("jft.checkpoint.arrays:write", 10),
    ("jft.checkpoint.sums:seal", 10),
    ("jft.checkpoint.sums:flush", 300),
    ("jft.checkpoint.step_folder:write", 10),  # after it: renamed, not yet tidied
    ("jft.checkpoint.step_folder:delete", 20),
    ("pathlib:Path.rename", 20),
    ("shutil:rmtree", 10),
)
ELSEWHERE = (
    ("jft.config.workdir:write_text", 1),
    ("jft.train.compiled_step:TrainStep.compile", 3),
    (STEP, 10),
    ("jft.evals:evaluate", 10),
    ("jft.evals:MetricLog.__init__", 1),
    ("jft.evals:MetricLog.write", 20),
    ("experiments.exported:write_export", 1),
    ("experiments.plots:write_plots", 1),
    ("jft.evals:write_summary", 1),
    ("pathlib:Path.replace", 6),
)


class Ended(NamedTuple):
    """How a run ended."""

    status: int  # negative: the signal that ended it
    log: str


class Runs:
    """Starts runs of one config in the worker; ``base`` is the model they start from.

    Compiled programs are cached below ``folder``: most runs compile what another did.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = folder / "base"
        self._worker = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd=ROOT,
            env=ENV
            | {
                "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            },
        )
        assert self._worker.stdout is not None
        assert self._worker.stdin is not None
        self._answers, self._commands = self._worker.stdout, self._worker.stdin
        assert self._answers.readline() == b"ready\n"

    def argv(self, workdir: Path, *more: str) -> list[str]:
        """The command line of a run; what is given in ``more`` wins."""
        pretrained = f"--config.model.pretrained={self.base}"
        return [f"--config={CONFIG}", f"--workdir={workdir}", pretrained, *more]

    def run(
        self,
        workdir: Path,
        *more: str,
        strike: dict[str, Any] | None = None,
        kill_after: float | None = None,
        drawn: bool = True,
    ) -> Ended:
        """Run until the end, a strike, or so many seconds."""
        log = self.folder / "log.txt"
        log.write_text("")
        command = {
            "argv": self.argv(workdir, *more),
            "log": str(log),
            "strike": strike,
            "drawn": drawn,
        }
        self._commands.write(json.dumps(command).encode() + b"\n")
        process = int(self._answers.readline())
        if not select.select([self._answers], [], [], kill_after)[0]:
            os.kill(process, signal.SIGKILL)  # not reaped yet, so it is the right one
        status = int(self._answers.readline())
        return Ended(status, log.read_text())

    def run_afresh(self, workdir: Path, *more: str, kill_after: float) -> Ended:
        """Run in a real process, killed as it starts, then in another; uncached."""
        command = [sys.executable, "-W", "ignore", "-m", "experiments.finetune"]
        command += self.argv(workdir, *more)
        with pytest.raises(subprocess.TimeoutExpired):
            subprocess.run(command, env=ENV, cwd=ROOT, timeout=kill_after)
        ended = subprocess.run(
            command, env=ENV, cwd=ROOT, text=True, capture_output=True, check=False
        )
        return Ended(ended.returncode, ended.stdout + ended.stderr)

    def close(self) -> None:
        """End the worker."""
        self._commands.close()
        self._answers.close()
        self._worker.wait()


def strike(function: str, call: int, *signals: str, after: bool = False) -> dict:
    return {"function": function, "call": call, "after": after, "signals": signals}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    letters = data.load_source("letters", None, num_per_class=1, seed=1)
    model = jft.init_model(
        MODEL,
        key=jax.random.key(0),
        class_names=sorted(set(letters.column("targets"))),
        processor=PROCESSOR,
    )
    runs = Runs(folder)
    jft.save(runs.base, model)
    yield runs
    runs.close()


@pytest.fixture(scope="module")
def unbroken(runs) -> Path:
    """The workdir of a run that nothing happened to. Only read it."""
    workdir = runs.folder / "unbroken"
    ended = runs.run(workdir)
    assert ended.status == 0, ended.log
    return workdir


def what_is_left(workdir: Path) -> dict[str, Any]:
    """Everything below a workdir that must not depend on how often it was killed."""
    left: dict[str, Any] = {}
    for file in sorted(workdir.rglob("*")):
        name = file.relative_to(workdir).as_posix()
        # Orbax's and TensorBoard's files hold the time; the sums are of Orbax's files
        timed = "arrays" in file.parts or file.name == "SHA256SUMS"
        if file.is_file() and not timed and not name.startswith("tensorboard/"):
            left[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    checkpoints = checkpoint.Checkpoints(workdir / "checkpoints")
    for step in checkpoints.steps():
        leaves = checkpoints.manifest(step).leaves
        abstract = {path: np.empty(x.shape, x.dtype) for path, x in leaves.items()}
        arrays = checkpoints.restore(step, abstract, expect=None).arrays
        for path, array in arrays.items():
            digest = hashlib.sha256(np.asarray(array).tobytes()).hexdigest()
            left[f"checkpoints/{step}/{path}"] = digest
    summary = json.loads((workdir / "summary.json").read_text())
    timed = ("seconds", "phases", "programs", "cache")  # of the last process alone
    left["summary.json"] = {k: v for k, v in summary.items() if k not in timed}
    return left


def assert_same_end(workdir: Path, unbroken: Path) -> None:
    left, expected = what_is_left(workdir), what_is_left(unbroken)
    differ = [x for x in {*left, *expected} if left.get(x) != expected.get(x)]
    assert not differ, (sorted(differ), workdir)


def steps_saved(workdir: Path) -> list[int]:
    return checkpoint.Checkpoints(workdir / "checkpoints").steps()


def test_the_run_has_in_it_what_is_hard_to_resume(unbroken):
    summary = json.loads((unbroken / "summary.json").read_text())
    assert "no better validation accuracy" in summary["stopped"]
    assert [p["start"] for p in summary["phases"]] == [0, 3, 6]
    assert summary["best"]["step"] < summary["steps"]
    assert steps_saved(unbroken)[0] == summary["best"]["step"]
    paths = "\n".join(what_is_left(unbroken))
    for part in ("trainable", "opt_state", "key", "average"):
        assert part in paths, part
    assert "vit/embeddings" not in paths


@pytest.mark.parametrize("function", [name for name, _ in (*IN_SAVES, *ELSEWHERE)])
def test_every_place_of_a_kill_is_there(function):
    module, _, qualname = function.partition(":")
    assert callable(
        functools.reduce(getattr, qualname.split("."), importlib.import_module(module))
    )


def draw_kill(draws: random.Random, seconds: float) -> dict[str, Any]:
    """A random moment: of the clock, in a save, or at another delicate place."""
    kind = draws.choice(("clock", "in a save", "elsewhere"))
    if kind == "clock":
        return {"kill_after": draws.uniform(0, seconds)}
    function, calls = draws.choice(IN_SAVES if kind == "in a save" else ELSEWHERE)
    call, after = draws.randint(1, calls), draws.random() < 0.5
    return {"strike": strike(function, call, "SIGKILL", after=after)}


def test_kills_at_random_moments_change_nothing(runs, unbroken):
    draws = random.Random(NUM_KILLS)
    seconds = json.loads((unbroken / "summary.json").read_text())["seconds"]
    kills, ends = [], 0  # what killed, and the step that was saved by then
    while len(kills) < NUM_KILLS or ends == 0:
        workdir = runs.folder / f"killed {ends}"
        while not (workdir / "summary.json").exists():
            kill = draw_kill(draws, seconds["total"] - seconds["compile"])
            if len(kills) >= NUM_KILLS:
                kill = {}
            ended = runs.run(workdir, **kill)
            assert ended.status in (0, -signal.SIGKILL), (kill, kills, ended.log)
            if ended.status:
                kills.append((kill, steps_saved(workdir)[-1:]))
        assert_same_end(workdir, unbroken)
        ends += 1
        print(f"{len(kills)} kills, {ends} runs that ended alike", flush=True)


def test_a_killed_run_replays_what_it_would_have_replayed(runs):
    """And asks the old head for its answers; both are parts of the loss.

    It goes on in a process that nothing was done in, which compiles anew.
    """
    keeps = [
        "--config.source.options={'num_per_class': 2, 'seed': 1}",
        "--config.source.split_sizes={'train': 1, 'test': 1}",
        "--config.source.split_per_class=True",
        "--config.train.replay.share=0.2",
        "--config.train.lwf.weight=1.0",
        "--config.train.grad_accum_steps=1",
        "--config.train.num_steps=8",
        "--config.optim.unfreeze.method=none",
    ]
    whole, killed = runs.folder / "replays", runs.folder / "replays_killed"
    ended = runs.run(whole, *keeps)
    assert ended.status == 0, ended.log
    assert "replay: 4 letters a step beside 16" in ended.log
    stepping = strike(STEP, 6, "SIGKILL")
    ended = runs.run(killed, *keeps, strike=stepping)
    assert ended.status == -signal.SIGKILL, ended.log
    ended = runs.run_afresh(killed, *keeps, kill_after=0.5)  # while it imports
    assert ended.status == 0, ended.log
    assert "going on from step" in ended.log
    assert_same_end(killed, whole)


# (function, call, signals, step saved then): of one run, in this order
STOPS = (
    # of the source, before anything is trained
    ("jft.evals:evaluate", 1, ["SIGTERM"], None),
    # the loader has worker processes up to here
    (STEP, 5, ["SIGTERM"], 5),
    # of the third phase, after the largest and the second: compiled, stepped, saved
    ("jft.train.compiled_step:TrainStep.compile", 3, ["SIGTERM"], 7),
    # of validation
    ("jft.evals:evaluate", 3, ["SIGINT"], 10),
    # of the source, when both are made up for after the resume
    ("jft.evals:evaluate", 2, ["SIGTERM"], 10),
    (STEP, 1, ["SIGINT", "SIGINT"], 10),
    ("jft.checkpoint.step_folder:write", 1, ["SIGTERM"], (11, 12, 13)),
    # of the test split: training is over
    ("experiments.keep:RunCheckpoints.restore_best", 1, ["SIGTERM"], 14),
)


def test_stop_signals_save_first_and_change_nothing(runs, unbroken):
    workdir = runs.folder / "stopped"
    for function, call, signals, step in STOPS:
        workers = ["--config.data.num_workers=2"] if step == 5 else []
        ended = runs.run(workdir, *workers, strike=strike(function, call, *signals))
        assert ended.status == INTERRUPTED, (function, call, step, ended)
        assert "Traceback" not in ended.log, ended.log
        told = ended.log.splitlines()[-1]
        assert told.startswith("interrupted"), told
        saved = steps_saved(workdir)[-1] if step is not None else None
        assert saved in step if isinstance(step, tuple) else saved == step, function
        if step is not None and len(signals) == 1:
            assert f"step {saved} of 60" in told or saved == 14, told
            assert f"--workdir={workdir}" in told, told
    ended = runs.run(workdir)
    assert ended.status == 0, ended.log
    assert_same_end(workdir, unbroken)


def test_a_finished_run_says_so_and_stays_as_it_is(runs, unbroken):
    def everything():
        files = [x for x in unbroken.rglob("*") if x.name != "config.json"]
        return {x: (x.stat().st_mtime_ns, x.stat().st_size) for x in files}

    before = everything()
    ended = runs.run(unbroken)
    assert ended.status == 0
    assert f"{unbroken} is finished" in ended.log
    assert everything() == before


@pytest.mark.parametrize("batching", ["length", "pack"])
def test_texts_go_on_in_the_second_epoch(batching, runs, tiny_bert):
    """Groups of like length, packed rows, and words hidden by the step they come at."""
    run = functools.partial(runs.run, drawn=False)
    data_folder = runs.folder / f"texts {batching}"
    data_folder.mkdir()
    flags = [
        f"--config={TEXT_CONFIG}:batching={batching}",
        f"--config.model.pretrained={tiny_bert}",
        f"--config.data.path={tiny_data.write_sst2(data_folder)}",
    ]
    unbroken, broken = (data_folder / name for name in ("unbroken", "broken"))
    ended = run(unbroken, *flags)
    assert ended.status == 0, ended.log
    loader = build.make_job(read_config(unbroken)).loader
    assert loader.settings["group_by_length"] == (batching == "length")
    assert len(loader.shapes) == {"length": 2, "pack": 1}[batching]
    step = strike(STEP, 8, "SIGKILL")
    ended = run(broken, *flags, strike=step)
    assert ended.status == -signal.SIGKILL, ended.log
    epoch = loader.steps_per_epoch
    assert epoch < steps_saved(broken)[-1] < 2 * epoch
    ended = run(broken, *flags)
    assert ended.status == 0, ended.log
    assert "going on from step" in ended.log
    assert_same_end(broken, unbroken)


def test_activations_are_found_again(runs, tiny_bert):
    """Killed while they are written and while they are read, with layers opening."""
    run = functools.partial(runs.run, drawn=False)
    folder = runs.folder / "cached"
    folder.mkdir()
    flags = [
        f"--config={ROOT}/configs/sst2.py:quicktest",
        f"--config.model.pretrained={tiny_bert}",
        f"--config.data.path={tiny_data.write_sst2(folder)}",
        "--config.data.global_batch_size=16",
        "--config.optim.unfreeze.method=top_down",
        "--config.optim.unfreeze.every_steps=9",
        "--config.train.num_steps=30",
        "--config.train.log_every_steps=1",
        "--config.train.cache.use=on",
        "--config.checkpoint.save_every_steps=1",
        "--config.evals.eval_every_steps=3",
    ]
    unbroken, broken = folder / "unbroken", folder / "broken"
    ended = run(unbroken, *flags)
    assert ended.status == 0, ended.log
    summary = json.loads((unbroken / "summary.json").read_text())
    assert summary["cache"]["rows_read"] >= 9 * 16
    assert not (unbroken / "activations").exists()

    for function, call in (
        ("jft.data:RowFiller.write", 3),
        ("jft.data:RowFiller.finish", 1),
        (STEP, 5),
        (STEP, 2),  # all with the head alone open
    ):
        struck = strike(function, call, "SIGKILL", after=True)
        ended = run(broken, *flags, strike=struck)
        assert ended.status == -signal.SIGKILL, (function, ended.log)
        assert (broken / "activations").exists()
    ended = run(broken, *flags)
    assert ended.status == 0, ended.log
    assert not (broken / "activations").exists()
    assert json.loads((broken / "summary.json").read_text())["cache"]["rows_found"]
    assert_same_end(broken, unbroken)
