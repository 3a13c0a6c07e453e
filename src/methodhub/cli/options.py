"""What every verb shares: its common options, where the data lies, and how a value is printed."""

# ruff: noqa: PLC0415 - slow imports stay inside the verbs that need them, so that --help is quick

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from methodhub.cli.exit_codes import ExitCode, Failure

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        readable=False,
        metavar="PATH",
        help="The hub's data directory. Default: METHODHUB_DATA_DIR, else one per user.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts; also errors, on stderr.")]
Keys = Annotated[bool, typer.Option("--keys", help="Print the secret keys too.")]


def not_empty(text: str | None) -> str | None:
    """An empty id would mean another thing, such as a device instead of its module."""
    if text == "":
        raise typer.BadParameter("it is empty")
    return text


DeviceId = Annotated[str, typer.Argument(metavar="DEVICE", callback=not_empty, help="Id of the device.")]
ModuleId = Annotated[str, typer.Argument(metavar="MODULE", callback=not_empty, help="Id of the module.")]
OfModule = Annotated[
    str | None, typer.Option("--module", metavar="ID", callback=not_empty, help="Of this module of the device.")
]


def load_settings(flags: Mapping[str, object], *, config: Path | None = None, assignments: Sequence[str] = ()) -> Any:
    """The settings; a problem with them is a problem of usage."""
    from methodhub.config import ConfigError, load

    try:
        return load(flags, config=config, assignments=assignments)
    except ConfigError as error:
        raise Failure(ExitCode.USAGE, str(error)) from None


def data_dir_of(flag: Path | None) -> Path:
    """Where the data lies: by the same table of settings as `serve`, so that both agree."""
    path: Path = load_settings({"data_dir": flag}).data_dir
    return path


def note(text: str) -> None:
    """A line for the person at the terminal; scripts read stdout only."""
    typer.echo(text, err=True)


def print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on a terminal; elsewhere one line per row with tabs between, without a heading."""
    if not sys.stdout.isatty():
        for row in rows:
            typer.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)


def print_fields(document: Mapping[str, object]) -> None:
    """One line per field; nested fields with their path, absent ones left out."""
    for name, value in document.items():
        if isinstance(value, Mapping):
            print_fields({f"{name}.{inner}": item for inner, item in value.items()})
        elif value not in (None, "", []):
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            typer.echo(f"{name}: {str(shown).lower() if isinstance(shown, bool) else shown}")
