# SPDX-License-Identifier: Apache-2.0
"""Every notebook runs, carries no output, and says what its .py says."""

from pathlib import Path

import pytest

COLABS = Path(__file__).parents[1] / "colabs"
NOTEBOOKS = sorted(COLABS.glob("*.ipynb"))
PICTURES = {"first_finetune": 5, "forgetting": 2}
FEWER_STEPS = {
    "first_finetune": ("num_steps = 240", "num_steps = 120"),
    "forgetting": ("num_steps = 120", "num_steps = 40"),
}
by_name = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)


def read(path):
    import jupytext

    return jupytext.read(path)


def test_every_notebook_has_its_script():
    assert NOTEBOOKS
    assert {p.stem for p in NOTEBOOKS} == {p.stem for p in COLABS.glob("*.py")}


@by_name
def test_notebook_and_script_have_the_same_cells(notebook):
    cells, of_script = (
        [(cell.cell_type, cell.source) for cell in read(path).cells]
        for path in (notebook, notebook.with_suffix(".py"))
    )
    assert cells == of_script, (
        f"run jupytext --to ipynb colabs/{notebook.stem}.py, or the other way round"
    )


@by_name
def test_outputs_are_stripped(notebook):
    found = read(notebook)
    assert found.metadata["kernelspec"]["name"] == "python3"
    code = [cell for cell in found.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)


def shorten(notebook, old, new):
    """It shows the same with fewer steps."""
    (cell,) = [cell for cell in notebook.cells if old in cell.source]
    cell.source = cell.source.replace(old, new)


@by_name
@pytest.mark.filterwarnings("default")  # the notebook machinery's own
def test_runs_from_top_to_bottom_and_shows_pictures(notebook, tmp_path, monkeypatch):
    from nbclient import NotebookClient

    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("PYTHONPATH", str(COLABS.parent))
    monkeypatch.delenv("MPLBACKEND", raising=False)  # pictures inline
    found = read(notebook)
    shorten(found, *FEWER_STEPS[notebook.stem])
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(
        found, timeout=600, kernel_name="python3", resources=resources
    ).execute()
    outputs = [out for cell in found.cells for out in cell.get("outputs", [])]
    shown = [out for out in outputs if "image/png" in out.get("data", {})]
    assert len(shown) >= PICTURES[notebook.stem]
    said = "".join(out.get("text", "") for out in outputs)
    percent = float(said.rsplit("%", 1)[0].split()[-1])  # of the exported model
    assert percent > 80, "chance is 10"
