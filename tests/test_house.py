"""The rules of the house (`docs/design.md`): sizes, words, tags and which way knowledge flows."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "methodhub"
MODULES = sorted(path for path in SOURCE.rglob("*.py") if "__pycache__" not in path.parts)
TESTS = sorted(path for path in (ROOT / "tests").rglob("*.py") if not {"__pycache__", "node_modules"} & set(path.parts))
names = [str(path.relative_to(SOURCE)) for path in MODULES]

MAX_MODULE, MAX_FUNCTION, MAX_FOLDER = 450, 60, 12
FORBIDDEN_WORDS = {"broker", "command", "rpc", "thing", "client", "handler", "manager", "utils", "util"}
ALLOWED = {
    "client_id",  # MQTT's own word for a field of CONNECT
    "client_id_of",
    "check_client_id",
    "SettingsCommand",  # Typer's own word: it is one of its commands
}
TAG = re.compile(r"\[((?:HUB|MQTT|AMQP)-[A-Za-z0-9.-]+)\]")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def definitions(path: Path) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def words_of(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


@pytest.mark.parametrize("path", MODULES, ids=names)
def test_a_module_fits_into_a_head(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_MODULE
    for node in definitions(path):
        if not isinstance(node, ast.ClassDef):
            assert (node.end_lineno or 0) - node.lineno + 1 < MAX_FUNCTION, node.name


@pytest.mark.parametrize("path", MODULES, ids=names)
def test_a_module_says_what_its_room_does(path: Path) -> None:
    """In four lines at most; a diagram may follow."""
    docstring = ast.get_docstring(tree(path))
    assert docstring
    assert len(docstring.split("\n\n")[0].splitlines()) <= 4


@pytest.mark.parametrize("path", MODULES, ids=names)
def test_names_use_the_words_of_the_glossary(path: Path) -> None:
    named = [node.name for node in definitions(path)] + list(path.relative_to(SOURCE).with_suffix("").parts)
    wrong = {name for name in named if words_of(name) & FORBIDDEN_WORDS}
    assert wrong <= ALLOWED


def test_no_folder_overflows() -> None:
    sizes = Counter(path.parent for path in (*MODULES, *TESTS))
    assert {str(folder): size for folder, size in sizes.items() if size > MAX_FOLDER} == {}


def test_knowledge_flows_one_way() -> None:
    """The contracts of pyproject.toml: a new folder fails until it is given a layer."""
    result = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


# --- tags --------------------------------------------------------------------------------------------------------


def tags(paths: list[Path]) -> set[str]:
    return {tag for path in paths for tag in TAG.findall(path.read_text())}


def test_every_rule_that_is_enforced_is_proved() -> None:
    """A tag stands where a rule is enforced, and in the test that proves it."""
    proofs = tags([path for path in TESTS if path.name.startswith("test_") or path.name.endswith("_cases.py")])
    assert tags(MODULES) - proofs == set()


def test_every_rule_that_is_proved_is_enforced() -> None:
    """Of our own: a tag that only a test has is a misspelling, or a rule that is gone."""
    assert {tag for tag in tags(TESTS) - tags(MODULES) if tag.startswith("HUB-")} == set()


# --- what is in the repository -----------------------------------------------------------------------------------

FOREIGN = re.compile(
    r"(?<![\w.])/(?:work|tmp/venv|root|home/\w+)/"  # paths of somebody's machine
    r"|pypi\.org/simple|files\.pythonhosted\.org|registry\.npmjs\.org|artifactory|\bnexus\b"
)


def tracked() -> list[Path]:
    listed = subprocess.run(["/usr/bin/git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a repository")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_nothing_names_a_machine_or_a_registry() -> None:
    found = {}
    for path in tracked():
        if path == Path(__file__):
            continue
        match = FOREIGN.search(path.read_text(errors="ignore"))
        if match is not None:
            found[str(path.relative_to(ROOT))] = match[0]
    assert found == {}
