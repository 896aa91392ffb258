# SPDX-License-Identifier: Apache-2.0
"""Breaks the code in one place at a time, and tells which breaks no test notices.

    python -m tests.mutants jft/optim jft/partition --sample=100

A mutant is one changed operator, constant, condition or dropped statement. Each is
written into a copy of the checkout, in which the tests of its file run, then those of
its folder, then those named by ``--then``, until one fails. A survivor is printed as a
diff: a test is missing, something is said twice, or the change means nothing, which the
reader has to tell.
"""

import argparse
import ast
import copy
import difflib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
LEFT_OUT = shutil.ignore_patterns(".git", "__pycache__", ".*_cache", "*.egg-info")
SECONDS_AT_MOST = 900  # a mutant that hangs is noticed
OPTIONS = ["-x", "-n", "0", "-p", "no:cacheprovider"]
OPTIONS += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # imported before
COMPARED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
CALCULATED = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}  # fmt: skip


class Mutant(NamedTuple):
    """One change of one file."""

    path: Path  # relative to the checkout
    line: int
    text: str  # of the whole file


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """What a node may become."""
    match node:
        case ast.Compare(ops=[operator]) if type(operator) in COMPARED:
            yield replace(node, ops=[COMPARED[type(operator)]()])
        case ast.BinOp(op=operator, left=left) if type(operator) in CALCULATED:
            if not isinstance(left, ast.JoinedStr) and not is_type(node):
                yield replace(node, op=CALCULATED[type(operator)]())
        case ast.BoolOp(op=operator):
            other = ast.Or if isinstance(operator, ast.And) else ast.And
            yield replace(node, op=other())
            yield from (v for v in (node.values[0], node.values[-1]))
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand
        case ast.Constant(value=bool(value)):
            yield replace(node, value=not value)
        case ast.Constant(value=int(value) | float(value)):
            yield replace(node, value=value + 1)
        case ast.IfExp(body=body, orelse=orelse):
            yield replace(node, body=orelse, orelse=body)
        case ast.If(test=test):
            yield replace(node, test=ast.UnaryOp(ast.Not(), test))
        case ast.Raise() | ast.AugAssign() | ast.Continue() | ast.Break():
            yield ast.Pass()
        case ast.Expr(value=ast.Call()):
            yield ast.Pass()
        case ast.Return(value=ast.expr() as value) if not isinstance(
            value, ast.Constant
        ):
            yield replace(node, value=ast.Constant(None))


def replace(node: ast.AST, **fields: object) -> ast.AST:
    """A copy of a node with other fields."""
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def is_type(node: ast.BinOp) -> bool:
    """Whether ``a | b`` joins types, which mean nothing at run time."""
    names = ast.unparse(node)
    return isinstance(node.op, ast.BitOr) and ("None" in names or "Array" in names)


def mutants_of(path: Path) -> list[Mutant]:
    """Every mutant of a file; annotations, docstrings and imports are left alone."""
    source = (ROOT / path).read_text("utf-8")
    lines = source.encode().splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    found = []
    for node in walk(ast.parse(source)):
        for new in changes(node):
            begin = starts[node.lineno - 1] + node.col_offset
            end = starts[node.end_lineno - 1] + node.end_col_offset
            written = ast.unparse(ast.fix_missing_locations(new))
            if isinstance(node, ast.stmt):
                indent = "\n" + " " * node.col_offset
                written = written.replace("\n", indent)
            else:
                written = f"({written})"
            data = source.encode()
            text = (data[:begin] + written.encode() + data[end:]).decode()
            try:
                ast.parse(text)
            except SyntaxError:  # inside an f-string of an older grammar
                continue
            found.append(Mutant(path, node.lineno, text))
    return found


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes whose change can be noticed at run time."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.JoinedStr) or not isinstance(child, ast.AST):
                continue  # texts of messages: read, not tested word for word
            yield child
            yield from walk(child)


def tests_of(path: Path, then: list[str]) -> list[list[str]]:
    """The tests that may notice a change of a file, nearest first."""
    stage = Path("tests", *path.parent.parts[1:])
    own = stage / f"{path.stem}_test.py"
    nearest = [str(path)] + ([str(own)] if (ROOT / own).exists() else [])
    if path.parent == Path("jft"):
        return [nearest, *[[name] for name in then]]
    others = sorted(str(p.relative_to(ROOT)) for p in (ROOT / stage).rglob("*_test.py"))
    return [nearest, *[[p] for p in others if p not in nearest], *[[p] for p in then]]


def run_tests(checkout: Path, tests: list[str], log: Path) -> bool:
    """Whether tests pass, in a fork of this process; what is slow is imported."""
    child = os.fork()
    if child == 0:
        os.setsid()
        os.chdir(checkout)
        sys.path.insert(0, str(checkout))
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        code = 1
        try:
            code = pytest.main([*OPTIONS, *tests])
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0 if code in (0, 5) else 1)  # 5: nothing was collected
    until = time.monotonic() + SECONDS_AT_MOST
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status == 0
        if time.monotonic() > until:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return False
        time.sleep(0.02)


_passing: set[str] = set()  # tests that are known to pass where nothing is changed


def judge(mutant: Mutant, folder: str, then: list[str]) -> str | None:
    """The tests that noticed a mutant, or None for a survivor."""
    checkout = copy_of_checkout(folder)
    file, log = checkout / mutant.path, checkout / "mutant.log"
    whole = file.read_text("utf-8")
    for tests in tests_of(mutant.path, then):
        write_source(file, mutant.text)
        noticed = not run_tests(checkout, tests, log)
        write_source(file, whole)
        if noticed and tests[-1] not in _passing:
            if not run_tests(checkout, tests, log):
                raise RuntimeError(f"{tests} fail without a change:\n{log.read_text()}")
            _passing.add(tests[-1])
        if noticed:
            return tests[-1]
    return None


def write_source(file: Path, text: str) -> None:
    """Write a module, so that it is compiled anew."""
    file.write_text(text, "utf-8")
    shutil.rmtree(file.parent / "__pycache__", ignore_errors=True)


def show(mutant: Mutant) -> str:
    """The change, as a diff."""
    before = (ROOT / mutant.path).read_text("utf-8").splitlines()
    after = mutant.text.splitlines()
    name = f"{mutant.path}:{mutant.line}"
    return "\n".join(difflib.unified_diff(before, after, name, "", n=1, lineterm=""))


def prepare(folder: str) -> None:
    """Make a worker's copy of the checkout; import once what is slow to import."""
    import flax.linen  # noqa: F401
    import jax  # noqa: F401
    import optax  # noqa: F401
    import orbax.checkpoint  # noqa: F401
    import safetensors  # noqa: F401
    import transformers  # noqa: F401

    os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{folder}/jax"
    shutil.copytree(ROOT, copy_of_checkout(folder), ignore=LEFT_OUT)


def copy_of_checkout(folder: str) -> Path:
    """Where this process's copy is."""
    return Path(folder) / f"{os.getpid()}"


def main() -> None:
    """Judge a sample of the mutants of files or folders."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="+", type=Path, help="files or folders of jft")
    parser.add_argument("--sample", type=int, help="this many mutants, not all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--then", nargs="*", default=[], help="tests to try at last")
    asked = parser.parse_args()
    files = [
        file.resolve().relative_to(ROOT)
        for path in asked.paths
        for file in ([path] if path.is_file() else sorted(path.rglob("*.py")))
        if file.name != "__init__.py"
    ]
    mutants = [mutant for file in files for mutant in mutants_of(file)]
    print(f"{len(mutants)} mutants of {len(files)} files", flush=True)
    if asked.sample is not None and asked.sample < len(mutants):
        mutants = random.Random(asked.seed).sample(mutants, asked.sample)
    survived = 0
    with tempfile.TemporaryDirectory() as folder:
        if (ROOT.parent / "shared").exists():
            (Path(folder) / "shared").symlink_to(ROOT.parent / "shared")
        pool = ProcessPoolExecutor(
            asked.jobs, get_context("spawn"), initializer=prepare, initargs=(folder,)
        )
        judged = pool.map(partial(judge, folder=folder, then=asked.then), mutants)
        for count, (mutant, noticed) in enumerate(zip(mutants, judged, strict=True), 1):
            survived += noticed is None
            words = f"noticed by {noticed}" if noticed else f"SURVIVED\n{show(mutant)}"
            where = f"{count}/{len(mutants)} {mutant.path}:{mutant.line}"
            print(f"{where} {words}", flush=True)
    caught = len(mutants) - survived
    print(f"{caught} of {len(mutants)} noticed ({caught / len(mutants):.1%})")


if __name__ == "__main__":
    main()
