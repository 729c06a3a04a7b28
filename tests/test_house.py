"""The walls between the wings: who may import whom (`utils/__init__.py`)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WINGS = ["pictures", "stack", "fusing", "evaluation", "training"]  # each may import those before it
MAY = {wing: {*WINGS[: k + 1]} for k, wing in enumerate(WINGS)} | {"page": {"pictures", "stack", "fusing", "page"}}


def imported(path: Path) -> set[str]:
    """Returns the absolute names of all modules that a file imports, wherever it does."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            assert not node.level or path.parent.name == "models", f"{path}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
    return names


@pytest.mark.parametrize("path", sorted((ROOT / "utils").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_go_down(path):
    names = imported(path)
    top = {name.split(".")[0] for name in names}
    assert not top & {"configs", "deepfuse"} and not any(name.startswith("run_") for name in top)
    wing = path.parent.name
    used = {name.split(".")[1] for name in names if name.startswith("utils.")} & set(MAY)
    if wing == "utils":
        assert not used and "models" not in top
        return
    assert used <= MAY[wing]
    if wing in ("pictures", "stack"):
        assert not top & {"torch", "models"}


@pytest.mark.parametrize("path", sorted((ROOT / "models").glob("*.py")), ids=lambda path: path.name)
def test_networks_know_nothing_of_the_rest(path):
    assert not {name.split(".")[0] for name in imported(path)} & {"utils", "configs"}
