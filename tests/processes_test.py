# SPDX-License-Identifier: Apache-2.0
"""How processes start and agree; whole runs are in `tests/experiments`."""

import jax
import numpy as np
import pytest

from jft import processes
from jft.types import InputError

ENVIRONMENTS = (
    "JAX_COORDINATOR_ADDRESS",
    "KUBERNETES_SERVICE_HOST",
    "OMPI_MCA_orte_hnp_uri",
    "SLURM_JOB_ID",
)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"coordinator": "10.0.0.1"}, "--coordinator is '10.0.0.1'; expected the host"),
        ({"coordinator": "host:x"}, "a port of process 0"),
        ({"coordinator": "host:70000"}, "such as 10.0.0.1:1234"),
        ({"num_processes": 0}, "--num_processes is 0; expected 1 or more"),
        ({"process_id": -1}, "numbered from 0; give each"),
        ({"num_processes": 2, "process_id": 2}, "--process_id is 2, .* from 0 to 1;"),
    ],
)
def test_wrong_values_are_refused_before_jax_starts(given, sentence):
    with pytest.raises(InputError, match=sentence):
        processes.start(**given)


@pytest.fixture
def may_start(monkeypatch):
    """Nothing says that this machine is one of a cluster; settings are put back."""
    for name in ENVIRONMENTS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("jax._src.xla_bridge.backends_are_initialized", lambda: False)
    before = {
        name: jax.config.values[name]
        for name in ("jax_enable_preemption_service", "jax_cpu_enable_async_dispatch")
    }
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.parametrize(
    "given", [{}, {"coordinator": "127.0.0.1:1234"}, {"num_processes": 2}]
)
def test_an_environment_that_says_nothing_is_named(given, may_start):
    with pytest.raises(InputError, match="is not that of a TPU VM, SLURM's srun"):
        processes.start(**given)


def test_a_main_process_that_does_not_answer_is_an_error(may_start, monkeypatch):
    monkeypatch.setattr(processes, "START_SECONDS", 0.1)
    with pytest.raises(InputError, match=r"does not answer at 127\.0\.0\.1:9 "):
        processes.start(coordinator="127.0.0.1:9", num_processes=2, process_id=1)


def test_one_process_agrees_with_itself():
    assert processes.is_main()
    assert processes.gather("x") == ["x"]
    assert processes.from_main(lambda: 3) == 3
    assert processes.together(lambda: 4) == 4
    vote = processes.Vote()
    assert [vote(False), vote(True)] == [False, True]  # at once
    tree = {"x": np.ones(2)}
    assert processes.whole_tree(tree) is tree
    with pytest.raises(KeyError):
        processes.from_main(lambda: {}["absent"])


class TwoProcesses:
    """This process as one of two; ``other`` is what the other one sends."""

    def __init__(self, monkeypatch, *, index, other):
        monkeypatch.setattr(jax, "process_count", lambda: 2)
        monkeypatch.setattr(jax, "process_index", lambda: index)

        def gather(mine):
            return [other, mine] if index else [mine, other]

        monkeypatch.setattr(processes, "gather", gather)


def fail():
    raise InputError("given, expected, do")


def test_an_error_of_the_main_process_is_every_one_s(monkeypatch):
    error = InputError("no room")
    TwoProcesses(monkeypatch, index=1, other=processes._Outcome(error=error))
    with pytest.raises(InputError, match="no room"):
        processes.from_main(fail)  # which is not called here
    TwoProcesses(monkeypatch, index=0, other=processes._Outcome())
    with pytest.raises(InputError, match="given, expected"):
        processes.from_main(fail)


def test_an_error_of_any_process_is_every_one_s(monkeypatch):
    error = InputError("photos is no folder")
    TwoProcesses(monkeypatch, index=0, other=processes._Outcome(error=error))
    with pytest.raises(InputError, match="in process 1: photos is no folder"):
        processes.together(lambda: 3)
    TwoProcesses(monkeypatch, index=0, other=processes._Outcome())
    with pytest.raises(InputError, match="given, expected"):
        processes.together(fail)


def test_an_error_that_cannot_be_sent_is_told():
    class LocalError(Exception):
        pass

    sent = processes._Outcome(error=LocalError("why")).to_send()
    assert isinstance(sent.error, RuntimeError)
    assert "why" in str(sent.error)
