"""The verb `query`: the hub's query language, every page of the answer, as a table or as JSON lines."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from methodhub.cli.hub import Hub, run
from methodhub.cli.options import DataDir, Json, data_dir_of, print_table

Item = dict[str, Any]


def compact(value: object) -> str:
    """One cell: a text as it is, nothing for what is absent, else JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def print_lines(items: list[Item]) -> None:
    for item in items:
        typer.echo(json.dumps(item, ensure_ascii=False))


def show_query(data_dir: DataDir, text: str, as_json: bool, about: tuple[str, ...] = ()) -> None:
    """Print what a query finds: JSON lines page by page, or one table in the end. `about`: the path of what must be
    there, or the query has no meaning."""
    content = json.dumps({"query": text}).encode()

    async def work(hub: Hub) -> tuple[str, list[Item]]:
        if about:
            await hub.call("GET", *about)
        kind, found = "", []
        async for item_type, page in hub.pages("POST", "devices", "query", content=content):
            kind = item_type
            if as_json:
                print_lines(page)
            else:
                found += page
        return kind, found

    kind, found = run(data_dir_of(data_dir), work)
    if not as_json:
        print_items(kind, found)


def print_items(kind: str, items: list[Item]) -> None:
    """A table with the columns that suit the type of the items."""
    match kind:
        case "Twin":
            print_table(("device", "status", "connection", "tags"), [_twin_row(item) for item in items])
        case "DeviceJob":
            heads = ("job", "device", "status", "answer", "payload", "error")
            print_table(heads, [_device_job_row(item) for item in items])
        case _:
            columns = tuple(dict.fromkeys(name for item in items for name in item))
            print_table(columns, [[compact(item.get(name)) for name in columns] for item in items])


def _name(item: Item) -> str:
    return f"{item['deviceId']}/{item['moduleId']}" if item.get("moduleId") else str(item["deviceId"])


def _twin_row(item: Item) -> list[str]:
    return [
        _name(item),
        *(compact(item.get(name)) for name in ("status", "connectionState")),
        compact(item.get("tags")),
    ]


def _device_job_row(item: Item) -> list[str]:
    answer = (item.get("outcome") or {}).get("deviceMethodResponse") or {}
    error = item.get("error") or {}
    told = ": ".join(compact(error[name]) for name in ("code", "description") if error.get(name))
    cells = (item.get("jobId"), _name(item), item.get("status"), answer.get("status"))
    payload = compact(answer["payload"]) if "payload" in answer else ""
    return [*map(compact, cells), payload, told]


def query(
    text: Annotated[str, typer.Argument(metavar="QUERY", help="The query; - reads it from stdin.")],
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Ask the hub about devices, modules and device jobs; prints every page, with --json a line per item."""
    if text == "-":
        text = typer.get_text_stream("stdin").read()
    show_query(data_dir, text, as_json)
