# SPDX-License-Identifier: Apache-2.0
"""A command line becomes a resolved config, or one line of error and status 2."""

import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

from jft.config import new_flags, run, run_without_config
from jft.types import InputError, Interrupted

ROOT = Path(__file__).parents[2]
DIGITS = f"--config={ROOT}/configs/digits.py"


def status_of(main, *words, runner=run, **kwargs):
    with pytest.raises(SystemExit) as caught:
        runner(main, argv=["script", *words], **kwargs)
    return caught.value.code


def test_main_gets_the_resolved_config():
    seen = []
    words = [f"{DIGITS}:recipe=head", "--config.seed=5", "--workdir=some/folder"]
    assert status_of(seen.append, *words) == 0
    ((config, name, workdir),) = seen
    assert (config.seed, name, workdir) == (5, "digits", "some/folder")
    assert config.partition.rules[-1] == (".*", "frozen")
    assert status_of(seen.append, DIGITS) == 0
    assert seen[1].workdir is None  # nothing is left from the first call


@pytest.mark.parametrize("status", [0, 1, 3, None])
def test_the_status_of_main_is_the_script_s(status):
    assert status_of(lambda _: status, DIGITS) == (status or 0)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "no --config was given"),
        (["--config=absent.py"], "names no config file"),
        ([f"{DIGITS}:recipe=fast"], "expected one of recipe, full, head, scratch"),
        ([DIGITS, "--wrokdir=x"], "Unknown command line flag 'wrokdir'. Did you mean"),
        ([DIGITS, "--workdir"], "Missing value for flag --workdir"),
        ([DIGITS, "stray"], "unexpected argument 'stray'"),
        ([DIGITS, "--config.trian.phases=gated"], "Did you mean train"),
        ([DIGITS, "--config.optim.learning_rate=0.0.1"], "'0.0.1' (str); expected a"),
        ([DIGITS, "--config.train.num_steps"], "has no key or no value"),
    ],
)
def test_bad_input_is_one_line_and_status_2(words, sentence, capsys):
    assert status_of(lambda _: 0, *words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert sentence in err


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (InputError("given, expected, do"), 2, "error: given, expected, do\n"),
        (Interrupted("saved step 3"), 75, "interrupted: saved step 3\n"),
        (Interrupted(), 75, "interrupted\n"),
        (KeyboardInterrupt(), 75, "interrupted\n"),
    ],
)
def test_errors_of_main_become_statuses_unless_debug(error, status, text, capsys):
    def main(_):
        raise error

    assert status_of(main, DIGITS) == status
    assert capsys.readouterr().err == text
    with pytest.raises(type(error)):
        run(main, argv=["script", DIGITS, "--debug"])


def test_our_own_faults_keep_their_traceback():
    def main(_):
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        run(main, argv=["script", DIGITS])


def test_a_script_with_its_own_flags_and_no_config(capsys):
    own = new_flags()
    model = flags.DEFINE_string("model", None, "A folder.", own)
    seen = []

    def main():
        seen.append(model.value)

    def status(*words):
        return status_of(main, *words, runner=run_without_config, flag_values=own)

    assert status("--model=a") == 0
    assert status() == 0
    assert seen == ["a", None]
    assert status("--config=a.py") == 2
    assert "Unknown command line flag 'config'" in capsys.readouterr().err
    assert status("--help") == 0
    assert "--model: A folder." in capsys.readouterr().out


def test_the_global_flags_count_as_parsed():
    # in a process of its own: here, some other test may have parsed them
    code = (
        "from absl import flags; from jft.config import run\n"
        "run(lambda _: 0 if flags.FLAGS.is_parsed() else 9)"
    )
    words = [sys.executable, "-c", code, DIGITS]
    assert subprocess.run(words, cwd=ROOT, check=False).returncode == 0


def test_a_real_process_prints_one_line_and_no_traceback():
    code = "from jft.config import run; run(lambda _: 0)"
    done = subprocess.run(
        [sys.executable, "-c", code, "--config=configs/digits.py", "--config.seed=x"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "error: seed is 'x' (str); expected a whole number at least 0.\n"
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--coordinator=h:1"], "--coordinator without --distributed; add it"),
        (["--num_processes=2", "--process_id=0"], "--num_processes, --process_id with"),
        (["--distributed", "--coordinator=h"], "--coordinator is 'h'; expected the"),
        (["--num_processes=x"], "--num_processes"),
    ],
)
def test_flags_of_processes_that_say_too_little_are_refused(words, sentence, capsys):
    assert status_of(lambda _: 0, DIGITS, *words) == 2
    assert sentence in capsys.readouterr().err
