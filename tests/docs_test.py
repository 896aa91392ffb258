# SPDX-License-Identifier: Apache-2.0
"""What the pages say about the repository is so."""

import ast
import importlib
import re
from pathlib import Path

import pytest

import jft

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {name: (ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md")}
ROW = re.compile(r"^\| (\w+) \| .* \| `(jft/\w+/)` \| `(\w+)` \|$", re.M)
# paths of the reader's own machine, in examples
EXAMPLES = {"runs/photos", "runs/photos/export"}


def stages_of_the_imports_test():
    tree = ast.parse((ROOT / "tests" / "imports_test.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "STAGES":
            return list(ast.literal_eval(node.value))
    raise AssertionError("tests/imports_test.py has no STAGES")


def arrows(text):
    """The first "a → b → …" in a text, which may go over lines."""
    return re.search(r"\w+(?:\s*→\s*\w+){5,}", text)[0].replace("→", " ").split()


def test_the_stages_have_one_order_everywhere():
    expected = stages_of_the_imports_test()
    assert [stage for stage, _, _ in ROW.findall(README)] == expected
    assert arrows(jft.__doc__) == expected
    assert arrows(PAGES["CONTRIBUTING.md"]) == expected


def test_the_stage_table_names_folders_and_public_functions():
    for stage, folder, function in ROW.findall(README):
        assert folder == f"jft/{stage}/"
        assert (ROOT / folder).is_dir()
        assert function in importlib.import_module(f"jft.{stage}").__all__


@pytest.mark.parametrize("page", PAGES)
def test_every_path_exists(page):
    quoted = re.findall(r"`([\w./-]+/[\w./-]*)(?:::\w+)?`", PAGES[page])
    linked = re.findall(r"\]\((?!http)([^)#]+)\)", PAGES[page])
    configs = re.findall(r"--config=(configs/[\w.]+)", PAGES[page])
    # `plots/…` and `export/` are in every workdir
    inside = ("plots/", "export/")
    paths = {
        path
        for path in [*quoted, *linked, *configs]
        if path not in EXAMPLES and not path.startswith(inside)
    }
    missing = sorted(path for path in paths if not (ROOT / path).exists())
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_every_script_exists_and_knows_its_flags(page):
    commands = re.findall(
        r"python -m (experiments\.\w+)([^`\n]*)", PAGES[page].replace("\\\n", "")
    )
    for module, arguments in commands:
        script = importlib.import_module(module)
        known = set(getattr(script, "FLAGS", ("config", "workdir")))
        unknown = set(re.findall(r"--(\w+)=", arguments)) - known
        assert not unknown, f"{module} has no {unknown}"


def test_the_picture_is_small():
    pictures = re.findall(r"!\[.*\]\((.*)\)", README)
    assert pictures
    for picture in pictures:
        assert (ROOT / picture).stat().st_size <= 150_000
