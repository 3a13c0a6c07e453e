"""The verbs of `device` and `module`: the same few steps on one path or the other."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from enum import StrEnum
from shlex import quote
from typing import Annotated, Any

import typer

from methodhub.cli.certificates import (
    Auth,
    AuthChoice,
    CertificateFiles,
    PrimaryThumbprint,
    SecondaryThumbprint,
    authentication_of,
)
from methodhub.cli.exit_codes import ExitCode, Failure
from methodhub.cli.hub import Hub, run
from methodhub.cli.options import (
    DataDir,
    DeviceId,
    Json,
    Keys,
    ModuleId,
    data_dir_of,
    note,
    print_fields,
    print_json,
    print_table,
)
from methodhub.core.access import generate_key
from methodhub.core.identity import Target

device_app = typer.Typer(no_args_is_help=True, help="Create, list, show, change and delete devices.")
module_app = typer.Typer(no_args_is_help=True, help="Create, list, show, change and delete modules of a device.")

PAGE = 500


class Which(StrEnum):
    """Which of the two keys of an identity."""

    PRIMARY = "primary"
    SECONDARY = "secondary"
    BOTH = "both"


KeyChoice = Annotated[
    Which, typer.Option("--key", metavar="WHICH", help="What to replace: primary, secondary or both keys.")
]


def path_of(target: Target) -> tuple[str, ...]:
    device = ("devices", target.device_id)
    return (*device, "modules", target.module_id) if target.module_id else device


def without_keys(document: dict[str, Any]) -> dict[str, Any]:
    """The document without its secrets."""
    authentication = {name: value for name, value in document["authentication"].items() if name != "symmetricKey"}
    return {**document, "authentication": authentication}


async def change(hub: Hub, target: Target, changes: dict[str, Any]) -> dict[str, Any]:
    """Replace fields of an identity, unless somebody else changed it meanwhile (412001)."""
    current = await hub.call("GET", *path_of(target))
    changed: dict[str, Any] = await hub.call("PUT", *path_of(target), body=current | changes, etag=current["etag"])
    return changed


async def regenerate(hub: Hub, target: Target, which: Which) -> dict[str, Any]:
    """New random keys. What is connected with an old one is closed by the hub."""
    current = await hub.call("GET", *path_of(target))
    authentication = current["authentication"]
    if authentication.get("type", "sas") != "sas":
        raise Failure(ExitCode.REFUSED, f"{target} proves itself as {authentication['type']}; it has no keys")
    keys = dict(authentication["symmetricKey"])
    for name in (Which.PRIMARY, Which.SECONDARY) if which is Which.BOTH else (which,):
        keys[f"{name.value}Key"] = generate_key()
    body = current | {"authentication": authentication | {"symmetricKey": keys}}
    changed: dict[str, Any] = await hub.call("PUT", *path_of(target), body=body, etag=current["etag"])
    return changed


async def all_devices(hub: Hub) -> AsyncIterator[list[dict[str, Any]]]:
    """Every device without keys, page by page, in the order of their ids."""
    query: dict[str, str] = {}
    while page := await hub.call("GET", "admin", "devices", limit=str(PAGE), **query):
        yield [without_keys(device) for device in page]
        query = {"after": page[-1]["deviceId"]}


def _show(document: dict[str, Any], keys: bool, as_json: bool) -> None:
    shown = document if keys else without_keys(document)
    if as_json:
        print_json(shown)
    else:
        print_fields(shown)


def _done(text: str, document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(without_keys(document))
    else:
        typer.echo(text)


def _delete(target: Target, data_dir: DataDir, as_json: bool) -> None:
    run(data_dir_of(data_dir), lambda hub: hub.call("DELETE", *path_of(target)))
    if as_json:
        print_json({"deleted": True})
    else:
        typer.echo(f"deleted {target}")


@device_app.command(
    "create", epilog="Example: methodhub device create thermostat-1 --auth x509-thumbprint --certificate device.pem"
)
def device_create(
    device: DeviceId,
    disabled: Annotated[bool, typer.Option("--disabled", help="Do not let it connect yet.")] = False,
    auth: AuthChoice = Auth.SAS,
    primary_thumbprint: PrimaryThumbprint = None,
    secondary_thumbprint: SecondaryThumbprint = None,
    certificate: CertificateFiles = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Create a device, with two random keys unless it proves itself by a certificate."""
    authentication = authentication_of(auth, primary_thumbprint, secondary_thumbprint, certificate)
    body = {"deviceId": device, "status": "disabled" if disabled else "enabled", "authentication": authentication}
    document = run(data_dir_of(data_dir), lambda hub: hub.call("PUT", "devices", device, body=body))
    _done(f"created {device}", document, as_json)
    if not as_json:
        note(f"its connection string: methodhub connection-string --device {quote(device)}")


@device_app.command("list", epilog="Example: methodhub device list --json")
def device_list(data_dir: DataDir = None, as_json: Json = False) -> None:
    """List every device, in the order of their ids; never their keys."""

    async def work(hub: Hub) -> list[list[str]]:
        rows: list[list[str]] = []
        first = True
        async for page in all_devices(hub):
            if not as_json:
                rows += [[d["deviceId"], d["status"], d["connectionState"], d["authentication"]["type"]] for d in page]
                continue
            for item in page:
                typer.echo(("[\n" if first else ",\n") + json.dumps(item, ensure_ascii=False), nl=False)
                first = False
        if as_json:
            typer.echo("[]" if first else "\n]")
        return rows

    rows = run(data_dir_of(data_dir), work)
    if not as_json:
        print_table(("device", "status", "connection", "authentication"), rows)


@device_app.command("show", epilog="Example: methodhub device show thermostat-1 --keys")
def device_show(device: DeviceId, keys: Keys = False, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Show one device."""
    _show(run(data_dir_of(data_dir), lambda hub: hub.call("GET", "devices", device)), keys, as_json)


@device_app.command("delete", epilog="Example: methodhub device delete thermostat-1")
def device_delete(device: DeviceId, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Delete a device, its modules and its sessions; its connections are closed."""
    _delete(Target(device), data_dir, as_json)


@device_app.command("enable", epilog="Example: methodhub device enable thermostat-1")
def device_enable(device: DeviceId, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Let a disabled device connect again."""
    document = run(data_dir_of(data_dir), lambda hub: change(hub, Target(device), {"status": "enabled"}))
    _done(f"enabled {device}", document, as_json)


@device_app.command("disable", epilog="Example: methodhub device disable thermostat-1")
def device_disable(device: DeviceId, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Close a device's connection and those of its modules, and let none of them connect."""
    document = run(data_dir_of(data_dir), lambda hub: change(hub, Target(device), {"status": "disabled"}))
    _done(f"disabled {device}", document, as_json)


@device_app.command("regenerate-keys", epilog="Example: methodhub device regenerate-keys thermostat-1 --key secondary")
def device_regenerate_keys(
    device: DeviceId, key: KeyChoice = Which.BOTH, data_dir: DataDir = None, as_json: Json = False
) -> None:
    """Give a device new random keys; a connection that used an old one is closed."""
    document = run(data_dir_of(data_dir), lambda hub: regenerate(hub, Target(device), key))
    _done(f"new keys for {device} ({key.value})", document, as_json)


@module_app.command("create", epilog="Example: methodhub module create thermostat-1 camera")
def module_create(
    device: DeviceId,
    module: ModuleId,
    auth: AuthChoice = Auth.SAS,
    primary_thumbprint: PrimaryThumbprint = None,
    secondary_thumbprint: SecondaryThumbprint = None,
    certificate: CertificateFiles = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Create a module, with two random keys unless it proves itself by a certificate."""
    target = Target(device, module)
    authentication = authentication_of(auth, primary_thumbprint, secondary_thumbprint, certificate)
    body = {"deviceId": device, "moduleId": module, "authentication": authentication}
    document = run(data_dir_of(data_dir), lambda hub: hub.call("PUT", *path_of(target), body=body))
    _done(f"created {target}", document, as_json)


@module_app.command("list", epilog="Example: methodhub module list thermostat-1")
def module_list(device: DeviceId, data_dir: DataDir = None, as_json: Json = False) -> None:
    """List the modules of a device; never their keys."""
    found = run(data_dir_of(data_dir), lambda hub: hub.call("GET", "devices", device, "modules"))
    modules = [without_keys(module) for module in found]
    if as_json:
        print_json(modules)
    else:
        rows = [[m["moduleId"], m["connectionState"], m["authentication"]["type"]] for m in modules]
        print_table(("module", "connection", "authentication"), rows)


@module_app.command("show", epilog="Example: methodhub module show thermostat-1 camera")
def module_show(
    device: DeviceId, module: ModuleId, keys: Keys = False, data_dir: DataDir = None, as_json: Json = False
) -> None:
    """Show one module."""
    path = path_of(Target(device, module))
    _show(run(data_dir_of(data_dir), lambda hub: hub.call("GET", *path)), keys, as_json)


@module_app.command("delete", epilog="Example: methodhub module delete thermostat-1 camera")
def module_delete(device: DeviceId, module: ModuleId, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Delete a module and its sessions; its connection is closed."""
    _delete(Target(device, module), data_dir, as_json)


@module_app.command("regenerate-keys", epilog="Example: methodhub module regenerate-keys thermostat-1 camera")
def module_regenerate_keys(
    device: DeviceId, module: ModuleId, key: KeyChoice = Which.BOTH, data_dir: DataDir = None, as_json: Json = False
) -> None:
    """Give a module new random keys; a connection that used an old one is closed."""
    target = Target(device, module)
    document = run(data_dir_of(data_dir), lambda hub: regenerate(hub, target, key))
    _done(f"new keys for {target} ({key.value})", document, as_json)
