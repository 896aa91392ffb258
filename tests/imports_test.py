# SPDX-License-Identifier: Apache-2.0
"""The arrows between stages, and who alone may import what."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAGES = (
    "config",
    "data",
    "models",
    "params",
    "partition",
    "optim",
    "train",
    "checkpoint",
    "evals",
    "tasks",
    "export",
)
# in their order; files of the stage itself come before its folders
INSIDE = {
    "data": ("sources", "examples", "fields", "batches"),
    "params": ("adapters",),
}
FILES = sorted((ROOT / "jft").rglob("*.py"))
ONLY_IN = {"ml_collections": "config", "orbax": "checkpoint", "grain": "data"}
LAZY = {
    "datasets", "grain", "matplotlib", "ml_collections", "orbax", "PIL", "pyarrow",
    "rouge_score", "sacrebleu", "safetensors", "seqeval", "sklearn", "tensorboardX",
    "tensorflow_datasets", "tqdm", "transformers",
}  # fmt: skip


def imported(tree):
    """Every absolute module name that an AST imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def stage_of(path):
    parts = path.relative_to(ROOT / "jft").parts
    return parts[0] if len(parts) > 1 else None


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_data(path):
    stage = stage_of(path)
    names = set(imported(ast.parse(path.read_text())))
    used = {n.split(".")[1] for n in names if n.startswith("jft.")} & set(STAGES)
    if stage is not None:
        later = {s for s in used if STAGES.index(s) > STAGES.index(stage)}
        assert not later, f"{stage} imports the later stages {later}"
    for package, owner in ONLY_IN.items():
        if any(name.split(".")[0] == package for name in names):
            assert stage == owner, f"only jft/{owner} imports {package}"
    if path.name in ("types.py", "paths.py"):
        assert not used


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if len(path.relative_to(ROOT / "jft").parts) > 2],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_imports_inside_a_stage_follow_the_data(path):
    stage, folder, *_ = path.relative_to(ROOT / "jft").parts
    folders = INSIDE[stage]
    names = {
        tuple(name.split("."))
        for name in imported(ast.parse(path.read_text()))
        if name == f"jft.{stage}" or name.startswith(f"jft.{stage}.")
    }
    assert all(len(name) > 2 for name in names), f"imports all of jft.{stage}"
    files = {file.stem for file in (ROOT / "jft" / stage).glob("*.py")}
    used = {name[2] for name in names} - files
    assert used <= set(folders), f"imports {used - set(folders)} of jft.{stage}"
    later = {f for f in used if folders.index(f) > folders.index(folder)}
    assert not later, f"{stage}/{folder} imports the later {later}"


def test_every_folder_in_a_stage_has_a_place_in_its_order():
    for stage in STAGES:
        folders = {
            path.name
            for path in (ROOT / "jft" / stage).iterdir()
            if path.is_dir() and path.name != "__pycache__"
        }
        assert folders == set(INSIDE.get(stage, ())), stage


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_packages_are_imported_where_used(path):
    body = ast.parse(path.read_text()).body
    top = [n for n in body if not isinstance(n, ast.FunctionDef | ast.ClassDef)]
    heavy = {name.split(".")[0] for name in imported(ast.Module(top, []))} & LAZY
    assert not heavy, f"{path.name} imports {heavy} at the top"


def test_every_stage_lists_its_public_names():
    for stage in STAGES:
        tree = ast.parse((ROOT / "jft" / stage / "__init__.py").read_text())
        assigned = {
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        assert "__all__" in assigned, f"jft/{stage}/__init__.py has no __all__"


def test_tests_mirror_the_package():
    for path in (ROOT / "tests").rglob("*_test.py"):
        relative = path.relative_to(ROOT / "tests")
        if len(relative.parts) > 1:
            mirrored = (ROOT / "jft" / relative.parent, ROOT / relative.parent)
            assert any(f.is_dir() for f in mirrored), f"{relative} mirrors nothing"


def test_import_jft_loads_nothing_heavy():
    code = (
        "import sys, jft\n"
        f"print(sorted({LAZY!r} & {{name.split('.')[0] for name in sys.modules}}))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert out.stdout.strip() == "[]"
