"""The house rules that a machine can see: who may import whom, and what plain files may mention."""

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ["blocks", "tasks", "flows", "deployments"]
FILES = sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))


def imported_modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_run_down_the_floors_and_never_sideways_between_flows(path: Path) -> None:
    floor = FLOORS.index(path.relative_to(ROOT).parts[0])
    for module in imported_modules(path):
        room = module.split(".")[0]
        assert room not in FLOORS[floor + 1 :], f"{name(path)} imports {module} from a floor above it"
        assert room != "tests", f"{name(path)} imports {module}"
        if path.name.startswith(("ingest_", "capture_", "tend_")):
            assert room != "flows", f"{name(path)} imports {module} from another flow"


@pytest.mark.parametrize("path", [path for path in FILES if path.name.startswith("_")], ids=name)
def test_plain_files_never_mention_prefect_objects(path: Path) -> None:
    foreign = [module for module in imported_modules(path) if module.split(".")[0] in {"prefect", "prefect_aws"}]
    assert foreign == []


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name == "flows"], ids=name)
def test_no_flow_file_hides_something_importable(path: Path) -> None:
    assert importlib.util.find_spec(path.stem) is None
