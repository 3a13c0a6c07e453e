"""The reference is complete and true: every setting, verb, option, exit code, error, route and metric stands in it.

A failing test prints the row that belongs into the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperArgument

from methodhub.api.app import all_routes
from methodhub.api.heads import match_method_route
from methodhub.cli.app import app
from methodhub.cli.exit_codes import EXIT_MEANINGS, ExitCode, refused
from methodhub.cli.serve import SettingsCommand
from methodhub.config import PREFIX, Settings, allowed, default_text
from methodhub.core.errors import MEANINGS, ErrorCode
from methodhub.core.identity import Target
from tests.harness import RunningHub

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def page(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


def verbs(group: Any, path: tuple[str, ...] = ("methodhub",)) -> Iterator[tuple[str, Any]]:
    """Every verb as it is typed, in the order of the help."""
    for name, member in group.commands.items():
        if hasattr(member, "commands"):
            yield from verbs(member, (*path, name))
        else:
            yield " ".join((*path, name)), member


ROOT = typer.main.get_command(app)
VERBS = dict(verbs(ROOT))
SERVE = VERBS["methodhub serve"]
assert isinstance(SERVE, SettingsCommand)
SERVE.describe()
FLAGS = {parameter.name: parameter.opts[0] for parameter in SERVE.params}


def row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def rows(text: str) -> list[str]:
    """The rows of every table, without headings."""
    lines = text.splitlines()
    return [
        line
        for index, line in enumerate(lines)
        if line.startswith("| ")
        and not line.startswith("| ---")
        and not (index + 1 < len(lines) and lines[index + 1].startswith("| ---"))
    ]


def setting_row(name: str) -> str:
    flag = FLAGS.get(name, f"--set {name}=...")
    default = default_text(name)
    return row(
        f"`{name}`",
        f"`{PREFIX}{name.upper()}`",
        f"`{name}`",
        f"`{flag}`",
        f"`{default}`" if default else "unset",
        allowed(name),
        Settings.model_fields[name].description or "",
    )


def option_row(parameter: Any) -> str:
    if isinstance(parameter, TyperArgument):
        return row(f"`{parameter.metavar}`", parameter.help or "")
    value = "" if parameter.is_flag else f" {parameter.metavar}"
    names = ", ".join(f"`{name}{value}`" for name in (*parameter.opts, *parameter.secondary_opts))
    repeatable = " Repeatable." if parameter.multiple and "epeatable" not in parameter.help else ""
    default = parameter.default
    shown = f" Default: {default}." if isinstance(default, int | str) and not isinstance(default, bool) else ""
    return row(names, f"{parameter.help}{repeatable}{shown}")


def exit_row(code: ExitCode) -> str:
    return row(str(int(code)), EXIT_MEANINGS[code])


def error_row(code: ErrorCode) -> str:
    exit_code = refused(code, "").exit_code
    return row(str(int(code)), f"`{code.name}`", str(code.http_status), MEANINGS[code], str(int(exit_code)))


def section(text: str, heading: str) -> str:
    """What stands under a heading of the second level."""
    _, found, rest = text.partition(f"\n## {heading}\n")
    assert found, f"there is no heading '## {heading}'"
    return rest.partition("\n## ")[0]


def test_every_setting_and_no_other() -> None:
    assert rows(page("settings.md")) == [setting_row(name) for name in Settings.model_fields]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_with_its_words_its_options_and_an_example(verb: str) -> None:
    text = section(page("cli.md"), f"`{verb}`")
    command = VERBS[verb]
    assert " ".join(command.help.split()) in text
    assert command.epilog.removeprefix("Example: ") in text
    assert rows(text) == [option_row(parameter) for parameter in command.params]


def test_no_verb_that_is_not_there() -> None:
    headings = [line for line in page("cli.md").splitlines() if line.startswith("## `")]
    assert headings == [f"## `{verb}`" for verb in VERBS]
    assert "`methodhub --version`" in page("cli.md")


def test_every_exit_code() -> None:
    assert rows(section(page("cli.md"), "Exit codes")) == [exit_row(code) for code in ExitCode]


def test_every_error_and_no_other() -> None:
    assert rows(page("errors.md")) == [error_row(code) for code in ErrorCode]
    assert set(MEANINGS) == set(ErrorCode)


def registered_routes() -> set[tuple[str, str]]:
    """Verb and path of each route; HEAD comes with GET, and a slash at the end is no other route."""
    routes = all_routes()
    return {(verb, route.path.rstrip("/")) for route in routes for verb in (route.methods or set()) - {"HEAD"}}


def documented_routes() -> list[tuple[str, str]]:
    cells = [line.strip("| ").split(" | ") for line in rows(section(page("routes.md"), "The table"))]
    return [(verb, path.strip("`")) for verb, path, _right, _answer in cells]


def test_every_route_and_no_other() -> None:
    found = documented_routes()
    assert len(found) == len(set(found))
    assert set(found) == registered_routes()


def test_the_routes_of_calls_are_those_that_are_answered_before_the_router() -> None:
    calls = [path for verb, path in documented_routes() if path.endswith("/methods") and verb == "POST"]
    named = [path.format(device_id="d1", module_id="m1").encode() for path in calls]
    assert [match_method_route(path) for path in named] == [Target("d1"), Target("d1", "m1")]


def test_every_metric_and_no_other(hub: RunningHub) -> None:
    families = re.findall(
        r"^# HELP (\S+) (.+)\n# TYPE \1 (\S+)$", hub.hub.metrics.exposition().decode(), flags=re.MULTILINE
    )
    wanted = [f"| `{name}` | {kind} | {text} |" for name, text, kind in families]
    found = rows(page("metrics.md"))
    missing = [start for start in wanted if not any(line.startswith(start) for line in found)]
    assert not missing
    assert len(found) == len(wanted)
