# SPDX-License-Identifier: Apache-2.0
"""The benchmark measures both sides, as often as asked, and says what it ran on."""

import json

from experiments import benchmark


def test_loader_and_step_are_measured_in_turn(call, tiny, tmp_path):
    output = tmp_path / "out.json"
    argv = [tiny, "--steps=2", "--rounds=3", f"--output={output}"]
    result = call(benchmark, *argv)
    assert result.status == 0, result.err
    facts = json.loads(output.read_text())
    (measured,) = facts["results"]
    assert measured["config"] == "tiny"
    for side in ("loader", "step"):
        assert len(measured[side]) == 3
        assert min(measured[side]) > 0
    assert {"jax", "python"} <= set(facts["versions"])
    assert {"device", "cores", "date"} <= set(facts["machine"])
    assert result.out.splitlines()[-1].split()[0] == "tiny"


def test_a_config_is_needed(call):
    result = call(benchmark)
    assert result.status == 2
    assert "--config is missing" in result.err
