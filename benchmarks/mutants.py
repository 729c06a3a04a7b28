"""Changes the code and runs its tests, which must then fail: python benchmarks/mutants.py [MODULE ...] [--count 300].

A mutant differs in one place: a number, a comparison, an operator, an `and`, a `not`, or what a function returns. Each
runs in a copy of the project, with those of the module's own tests that call the changed function, the fastest first,
up to the first failure. A mutant that all tests pass has survived: nothing notices it, or it is the same program.

Left out is what cannot change a result by its meaning: how many threads a pool has and how many results a cache, how
large the parts are into which work is divided (STRIP_PIXELS, TILE), that `zip` asks for equal lengths, and from where a
warning is said to come (stacklevel), which the programs do not show.
"""

import argparse
import ast
import copy
import importlib
import json
import math
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import cv2  # the libraries of the tests are imported once, since each mutant is a fork
import pytest
import scipy.signal  # noqa: F401
import skimage.color  # noqa: F401
import skimage.metrics  # noqa: F401
import torch
from PIL import Image, ImageCms  # noqa: F401

ROOT = Path(__file__).resolve().parents[1]
TESTS = {  # module -> its tests
    "utils/stack/align.py": ["tests/test_align.py"],
    "utils/stack/ghost.py": ["tests/test_ghost.py"],
    "utils/stack/noise.py": ["tests/test_noise.py"],
    "utils/stack/radiance.py": ["tests/test_radiance.py"],
    "utils/stack/response.py": ["tests/test_response.py"],
    "utils/fusing/adjust.py": ["tests/test_adjust.py"],
    "utils/fusing/blend.py": ["tests/test_blend.py"],
    "utils/fusing/colour.py": ["tests/test_colour.py"],
    "utils/fusing/fusion.py": [
        *("tests/test_fusion.py", "tests/test_hdr.py", "tests/test_run_infer.py", "tests/test_ghost.py"),
        *("tests/test_radiance.py", "tests/test_light.py"),
    ],
    "utils/fusing/hdr.py": ["tests/test_hdr.py"],
    "utils/fusing/network.py": ["tests/test_network.py", "tests/test_fusion.py"],
    "utils/pictures/hdr.py": ["tests/test_hdr.py"],
    "utils/pictures/metadata.py": [
        *("tests/test_metadata.py", "tests/test_image.py", "tests/test_camera.py", "tests/test_light.py"),
        *("tests/test_radiance.py", "tests/test_hostile.py"),
    ],
    "utils/pictures/pixels.py": ["tests/test_pixels.py"],
    "utils/pictures/scenes.py": ["tests/test_scenes.py", "tests/test_run_infer.py"],
    "utils/training/loss.py": ["tests/test_loss.py"],
    "utils/evaluation/metric.py": ["tests/test_metric.py"],
    "utils/files.py": ["tests/test_files.py"],
    "utils/errors.py": ["tests/test_errors.py"],
}
SWAPPED = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And,
    ast.MatMult: ast.Mult,
}  # fmt: skip
POOLS = "ThreadPoolExecutor", "lru_cache"
PARTS = "STRIP_PIXELS", "TILE"
LONGER, SECONDS = 3, 10  # a mutant that computes for longer than LONGER times its tests and SECONDS more is killed


def places(tree: ast.AST) -> list[tuple[int, str]]:
    """Returns where a module can be changed: (number of the node in `ast.walk`, how)."""
    found: list[tuple[int, str]] = []
    same = {id(inner) for node in ast.walk(tree) if _only_divides(node) for inner in ast.walk(node)}
    for number, node in enumerate(ast.walk(tree)):
        if id(node) in same:
            continue
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            found += [(number, "number"), (number, "factor")][: 1 + (node.value != 0)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
            found.append((number, "bool"))
        elif isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp) and type(node.op) in SWAPPED:
            found.append((number, "operator"))
        elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPPED:
            found.append((number, "comparison"))
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
            found.append((number, "sign"))
        elif isinstance(node, ast.Return) and node.value is not None:
            found.append((number, "return"))
    return found


def _only_divides(node: ast.AST) -> bool:
    """Returns whether all in this node is of the kind that is left out."""
    if isinstance(node, ast.Call):
        return ast.unparse(node.func).rpartition(".")[2] in POOLS
    if isinstance(node, ast.keyword):
        return node.arg == "stacklevel" or node.arg == "strict" and ast.unparse(node.value) == "True"
    return isinstance(node, ast.Assign) and all(ast.unparse(target) in PARTS for target in node.targets)


def changed(tree: ast.Module, number: int, how: str) -> tuple[str, int]:
    """Returns the source of a module with one node changed, and its line."""
    tree = copy.deepcopy(tree)
    node = list(ast.walk(tree))[number]
    if how == "number":
        node.value += 1
    elif how == "factor":
        node.value *= 2
    elif how == "bool":
        node.value = not node.value
    elif how == "operator":
        node.op = SWAPPED[type(node.op)]()
    elif how == "comparison":
        node.ops[0] = SWAPPED[type(node.ops[0])]()
    elif how == "sign" and isinstance(node.op, ast.USub):
        node.op = ast.UAdd()
    elif how == "sign":
        node.operand = ast.UnaryOp(ast.Not(), node.operand)
    else:
        node.value = ast.Constant(None)
    return ast.unparse(ast.fix_missing_locations(tree)), node.lineno


class Calls:
    """A plugin of pytest that writes down which functions each test calls, and how long the test takes."""

    def __init__(self, modules: Sequence[str]):
        self.modules = {os.path.abspath(module): module for module in modules}
        # test -> seconds; whether it starts programs, which are not seen; first lines by module
        self.found: dict[str, tuple[float, bool, dict[str, list[int]]]] = {}

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item):
        lines: dict[str, set[int]] = {}

        def called(frame, event, argument) -> None:
            if module := self.modules.get(frame.f_code.co_filename):
                lines.setdefault(module, set()).add(frame.f_code.co_firstlineno)

        threading.settrace(called)
        sys.settrace(called)
        start = os.times()
        yield
        sys.settrace(None)
        own, system, others, more = (b - a for a, b in zip(start[:4], os.times()[:4], strict=True))
        started = bool(others + more)
        called_lines = {module: sorted(lines[module]) for module in lines}
        self.found[item.nodeid] = own + system + others + more, started, called_lines

    def pytest_sessionfinish(self) -> None:
        Path("calls.json").write_text(json.dumps(self.found))


def survives(module: str, source: str, tests: Sequence[str], seconds: float) -> bool:
    """Returns whether tests pass with this source in a module's place; the current folder is a copy of the project."""
    original = Path(module).read_text(encoding="utf-8")
    Path(module).write_text(source, encoding="utf-8")
    try:
        return passes(tests, seconds)
    finally:
        Path(module).write_text(original, encoding="utf-8")


def passes(tests: Sequence[str], seconds: float, plugins: Sequence[object] = ()) -> bool:
    """Returns whether tests pass within so many seconds of computing, in a fork, which has the libraries already."""
    if (child := os.fork()) == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds),) * 2)
        sys.dont_write_bytecode = not plugins  # what does not change is compiled once
        silent = os.open(os.devnull, os.O_RDWR)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        os._exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-m", "not long", *tests], plugins))
    end = time.monotonic() + 10 * seconds
    while (done := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < end:
        time.sleep(0.02)
    if done == (0, 0):
        os.kill(child, signal.SIGKILL)
        done = os.waitpid(child, 0)
    return done[1] == 0


def tests_of(node: ast.AST, tree: ast.Module, tests: Sequence[str], lines: dict[str, list[int] | None]) -> list[str]:
    """Returns those of a module's tests that call the innermost function around a node.

    All, if it is in none, or if none is seen to call it, as where its result is kept between tests.

    Args:
        lines: by test, the first lines of the functions that it calls; None, if it starts programs that may call any.
    """
    functions = [
        one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef) and any(node is x for x in ast.walk(one))
    ]
    first = min(x.lineno for x in (functions[-1], *functions[-1].decorator_list)) if functions else None
    if all(first not in (lines[test] or ()) for test in tests):
        return list(tests)
    return [test for test in tests if lines[test] is None or first in lines[test]]


def main(args: argparse.Namespace) -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder) / "project"
        shutil.copytree(ROOT, copied, ignore=shutil.ignore_patterns(".git", "__pycache__", "data_result", "train_*"))
        (copied.parent / "shared").symlink_to(ROOT.parent / "shared")
        os.chdir(copied)
        sys.path.insert(0, str(copied))
        importlib.import_module("models")  # conftest.py needs it
        trees = {module: ast.parse(Path(module).read_text(encoding="utf-8")) for module in args.modules or TESTS}
        rng = random.Random(args.seed)
        killed, total = dict.fromkeys(trees, 0), dict.fromkeys(trees, 0)
        if not passes([*{file: 0 for module in trees for file in TESTS[module]}], 3600, [Calls([*trees])]):
            raise SystemExit("the tests fail without any change")
        calls = json.loads(Path("calls.json").read_text())
        fastest = sorted(calls, key=lambda test: calls[test][0])
        sampled = rng.sample([(module, *place) for module in trees for place in places(trees[module])], args.count)
        for module, number, how in sampled:
            source, line = changed(trees[module], number, how)
            node = list(ast.walk(trees[module]))[number]
            own = [test for test in fastest if test.partition("::")[0] in TESTS[module]]
            lines = {test: None if calls[test][1] else calls[test][2].get(module, []) for test in own}
            tests = tests_of(node, trees[module], own, lines)
            alive = survives(module, source, tests, LONGER * sum(calls[test][0] for test in tests) + SECONDS)
            total[module] += 1
            killed[module] += not alive
            if alive:
                print(f"survived: {module}:{line}, {how} in {ast.unparse(node)[:90]}", flush=True)
    print("| module | mutants | killed |\n|---|---:|---:|")
    for module in trees:
        print(f"| {module} | {total[module]} | {killed[module]} |")
    share = sum(killed.values()) / args.count
    print(f"{args.count} mutants, {sum(killed.values())} killed: {share:.0%}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(TESTS)}; all without")
    parser.add_argument("--count", type=int, default=300, help="mutants, of all modules together")
    parser.add_argument("--seed", type=int, default=0, help="of their choice")
    args = parser.parse_args()
    if unknown := set(args.modules) - set(TESTS):
        parser.error(f"there are no mutants of {', '.join(sorted(unknown))}")
    main(args)
