"""Do tests fail when the code is wrong? Changes one comparison at a time and runs the tests of that file.

    python -m benchmarks.mutations [FILE ...] [--sample N] [--json FILE]

Changes `<` to `<=`, `==` to `!=`, `is` to `is not`, `in` to `not in`, `and` to `or`, `+ 1` to `- 1`, and back. In
filters `<` becomes `>=`: they compare measurements, which are never equal to a limit. Prints the changes that no test
noticed. Each mutant runs in a fork of this process, which has imported the heavy libraries once.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.abc
import importlib.util
import json
import os
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = {
    "crispedit/bounds.py": ["tests/test_cascade.py"],
    "crispedit/cascade.py": ["tests/test_cascade.py"],
    "pipelines/building/verdicts.py": ["tests/pipelines/test_verdicts.py"],
    "filters/clip.py": ["tests/filters/test_clip_filter.py"],
    "filters/dino.py": ["tests/filters/test_dino_filter.py"],
}
"""The tests of a file; those of any other `filters/X.py` are `tests/filters/test_X.py`."""
SWAPS = [(ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Eq, ast.NotEq), (ast.Is, ast.IsNot), (ast.In, ast.NotIn),
         (ast.And, ast.Or), (ast.Add, ast.Sub)]  # fmt: skip
OTHER = {one: other for pair in SWAPS for one, other in (pair, pair[::-1])}
MEASURED = OTHER | {ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt}
SQL = {"<": "<=", ">": ">="}
REWRITE = "pytest.PytestAssertRewriteWarning"
TIMEOUT_S = 90


def mutants(source, file="<source>"):
    """(line, change, code) of every mutant."""
    tree, swaps = ast.parse(source), MEASURED if "/filters/" in file else OTHER
    for node in ast.walk(tree):
        for holder, key, new in sites(node, swaps):
            before, old = ast.unparse(node), holder[key]
            holder[key] = new
            yield node.lineno, f"{before}  ->  {ast.unparse(node)}", compile(tree, file, "exec")
            holder[key] = old


def sites(node, swaps):
    if isinstance(node, ast.Compare):
        return [(node.ops, i, swaps[type(op)]()) for i, op in enumerate(node.ops)]
    one = isinstance(node, ast.BinOp) and isinstance(node.right, ast.Constant) and node.right.value == 1
    if isinstance(node, ast.BoolOp) or (one and type(node.op) in swaps):
        return [(vars(node), "op", swaps[type(node.op)]())]
    if isinstance(node, ast.Constant) and node.value in SQL:
        return [(vars(node), "value", SQL[node.value])]
    return []


class Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from given code."""

    def __init__(self, file, code):
        self.file, self.code = file, code
        self.module = file.removesuffix(".py").replace("/", ".").removeprefix("crispedit.")

    def find_spec(self, name, path, target=None):
        own = name == f"crispedit.{self.module}"
        return importlib.util.spec_from_loader(name, self, origin=self.file) if own else None

    def exec_module(self, module):
        module.__file__ = str(ROOT / self.file)
        exec(self.code, module.__dict__)


def pass_with(file, code):
    """Whether the file's tests pass with this code in its place."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    import pytest

    signal.alarm(TIMEOUT_S)
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    sys.meta_path.insert(0, Mutated(file, code))
    tests = TESTS.get(file, [f"tests/filters/test_{Path(file).stem}.py"])
    os._exit(pytest.main(["-xq", "-p", "no:cacheprovider", "-W", f"ignore::{REWRITE}", *tests]))


def prepare():
    """Import once what all tests import, and let Hypothesis stop at the first failure."""
    for library in ("cv2", "duckdb", "pyarrow.parquet", "pyarrow.compute", "pydantic", "pytest", "yaml"):
        importlib.import_module(library)
    from hypothesis import Phase, settings

    phases = [Phase.explicit, Phase.generate]
    settings.register_profile("mutants", phases=phases, derandomize=True, database=None)
    settings.load_profile("mutants")
    os.chdir(ROOT)


def unnoticed(file, sample=None):
    """(mutants tried, those that no test noticed) of a file; of `sample` mutants, evenly spaced, if given."""
    source = (ROOT / file).read_text()
    made = sorted(mutants(source, str(ROOT / file)), key=lambda mutant: mutant[0])
    if sample and sample < len(made):
        made = [made[i * len(made) // sample] for i in range(sample)]
    if not pass_with(file, compile(source, str(ROOT / file), "exec")):
        raise SystemExit(f"{file}: its tests fail, or take over {TIMEOUT_S} s, without a change")
    return len(made), [f"{file}:{line}: {change}" for line, change, code in made if pass_with(file, code)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="default: bounds, cascade, verdicts and all filters")
    parser.add_argument("--sample", type=int, help="mutants a file (default: all)")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    filters = sorted(f"filters/{path.name}" for path in (ROOT / "filters").glob("[a-z]*.py"))
    prepare()
    found = {}
    for file in chosen.files or [*list(TESTS)[:3], *filters]:
        tried, left = unnoticed(file, chosen.sample)
        found[file] = {"mutants": tried, "unnoticed": left}
        print(f"{file:32} {tried - len(left):4} of {tried} noticed", *left, sep="\n  ", flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
