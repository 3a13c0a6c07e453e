"""The verbs of `twin`: what is stored about a device or module, and a change of its tags and desired properties."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from methodhub.cli.exit_codes import ExitCode, Failure
from methodhub.cli.hub import Hub, run
from methodhub.cli.invoke import read_payload
from methodhub.cli.options import DataDir, DeviceId, Json, OfModule, data_dir_of, print_fields, print_json

twin_app = typer.Typer(no_args_is_help=True, help="Show and change tags and desired properties of devices and modules.")

PATCH_HELP = 'What to change, such as {"tags": {"site": "north"}}; null removes a key; - reads it from stdin.'


def twin_path(device: str, module: str | None) -> tuple[str, ...]:
    return ("twins", device, *(("modules", module) if module else ()))


def read_patch(text: str, name: str = "JSON") -> bytes:
    """The bytes of one JSON object. `name`: what it is called in a failure. Raises Failure."""
    data = read_payload(text, None, name)
    assert data is not None
    if not isinstance(json.loads(data), dict):
        raise Failure(ExitCode.USAGE, 'a twin is changed with a JSON object, such as {"tags": {"site": "north"}}')
    return data


@twin_app.command("show", epilog="Example: methodhub twin show thermostat-1")
def twin_show(device: DeviceId, module: OfModule = None, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Show the twin of a device or module."""
    twin = run(data_dir_of(data_dir), lambda hub: hub.call("GET", *twin_path(device, module)))
    if as_json:
        print_json(twin)
    else:
        print_fields(twin)


@twin_app.command("update", epilog="""Example: methodhub twin update thermostat-1 '{"tags": {"site": "north"}}'""")
def twin_update(
    device: DeviceId,
    patch: Annotated[str, typer.Argument(metavar="JSON", help=PATCH_HELP)],
    module: OfModule = None,
    etag: Annotated[
        str | None, typer.Option(metavar="ETAG", help="Only if the twin still has this etag. Default: in any case.")
    ] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Change tags and desired properties; what is not named stays."""
    content = read_patch(patch)

    async def work(hub: Hub) -> Any:
        return json.loads(await hub.send("PATCH", *twin_path(device, module), content=content, etag=etag or "*"))

    twin = run(data_dir_of(data_dir), work)
    if as_json:
        print_json(twin)
    else:
        typer.echo(f"changed the twin of {device}{'/' + module if module else ''}")
