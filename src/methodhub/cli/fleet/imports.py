"""The verb `device import`: a file of identities, sent to the hub's bulk route a hundred at a time."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from methodhub.cli.exit_codes import ExitCode, Failure
from methodhub.cli.fleet.progress import Report, progress
from methodhub.cli.hub import Hub, failure_of, run
from methodhub.cli.options import DataDir, Json, data_dir_of, note, print_json

BATCH = 100
"""What one request may hold (`wire/service.md` 3.4)."""

SHOWN = 20
"""Refused lines that are told in words; the rest is counted."""

Item = dict[str, Any]


class Mode(StrEnum):
    """The hub's importMode for lines that do not name their own."""

    CREATE = "create"
    UPDATE = "update"
    UPDATE_TWIN = "updateTwin"
    DELETE = "delete"


def device_import(
    file: Annotated[
        typer.FileText,
        typer.Argument(
            metavar="FILE",
            encoding="utf-8",
            help="JSON lines, a JSON array, or CSV with names such as id,tags.site in its first line; - is stdin.",
        ),
    ],
    mode: Annotated[
        Mode, typer.Option(metavar="MODE", help="What to do with each: create, update, updateTwin or delete.")
    ] = Mode.CREATE,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Create, change or delete as many devices and modules as a file holds, a hundred per request."""
    items = [complete(item, number, mode) for number, item in enumerate(read_items(file), 1)]

    async def work(hub: Hub) -> list[Item]:
        with progress("import", quiet=as_json) as report:
            return await send_all(hub, items, report)

    errors = run(data_dir_of(data_dir), work)
    done = len(items) - len(errors)
    if as_json:
        print_json({"done": done, "errors": errors})
    else:
        typer.echo(f"{mode.value}: {done} of {len(items)} done")
        for error in errors[:SHOWN]:
            name = "/".join(filter(None, (error.get("deviceId"), error.get("moduleId"))))
            note(f"{name}: {error.get('errorCode')}: {error.get('errorStatus')}")
        if len(errors) > SHOWN:
            note(f"and {len(errors) - SHOWN} more; --json tells all of them")
    if errors:
        raise typer.Exit(ExitCode.PARTLY)


async def send_all(hub: Hub, items: list[Item], report: Report) -> list[Item]:
    """The errors of every request."""
    errors: list[Item] = []
    for start in range(0, len(items), BATCH):
        errors += await send_batch(hub, items[start : start + BATCH])
        report(min(start + BATCH, len(items)), len(items), f"{len(errors)} refused" if errors else "none refused")
    return errors


async def send_batch(hub: Hub, batch: list[Item]) -> list[Item]:
    """A request of which a part was refused answers 400, with a header that says so."""
    response = await hub.exchange("POST", "devices", content=json.dumps(batch).encode())
    if not response.is_success and "iothuberrorcode" not in response.headers:
        raise failure_of(response)
    found: list[Item] = response.json().get("errors") or []
    return found


# --- reading -----------------------------------------------------------------------------------------------------


def read_items(file: TextIO) -> Iterator[Item]:
    """The identities of a file, whichever of the three ways it is written. Raises Failure."""
    name = getattr(file, "name", "FILE")
    try:
        lines = (line for line in file if line.strip())
        first = next(lines, "")
        whole = itertools.chain([first], lines)
        match first.lstrip()[:1]:
            case "":
                return
            case "[":
                yield from json.loads("".join(whole))
            case "{":
                yield from map(json.loads, whole)
            case _:
                yield from read_csv(whole)
    except (ValueError, RecursionError, csv.Error) as error:
        raise Failure(ExitCode.USAGE, f"{Path(name).name} holds no identities: {error}") from None


def read_csv(lines: Iterable[str]) -> Iterator[Item]:
    """A column `tags.site` is the field `site` in `tags`; an empty cell is no field; every cell is a text."""
    for row in csv.DictReader(lines, strict=True):
        if None in row or None in row.values():
            raise ValueError(
                f"the line of {next(iter(row.values()))!r} has another number of cells than the first line"
            )
        item: Item = {}
        for column, cell in row.items():
            if cell:
                *path, last = column.split(".")
                place = item
                for part in path:
                    place = place.setdefault(part, {})
                place[last] = cell
        yield item


def complete(item: object, number: int, mode: Mode) -> Item:
    """With the names that the bulk route knows. Raises Failure where there is no id."""
    if not isinstance(item, dict):
        raise Failure(ExitCode.USAGE, f"identity {number} is no JSON object")
    found = {"importMode": mode.value, **item}
    if "deviceId" in found:
        found.setdefault("id", found.pop("deviceId"))
    if not isinstance(found.get("id"), str):
        raise Failure(ExitCode.USAGE, f"identity {number} has no id")
    return found
