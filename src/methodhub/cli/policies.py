"""The verbs of `policy`: list, show, create, rotate and delete shared access policies. Keys are shown if asked for."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from methodhub.cli.exit_codes import ExitCode, Failure
from methodhub.cli.hub import Hub, run
from methodhub.cli.options import DataDir, Json, Keys, data_dir_of, not_empty, print_fields, print_json, print_table

policy_app = typer.Typer(no_args_is_help=True, help="List, show, create, rotate and delete shared access policies.")

Name = Annotated[str, typer.Argument(metavar="NAME", callback=not_empty, help="Name of the policy.")]
Document = dict[str, Any]


class RightName(StrEnum):
    """What a policy may allow."""

    REGISTRY_READ = "RegistryRead"
    REGISTRY_WRITE = "RegistryWrite"
    SERVICE_CONNECT = "ServiceConnect"
    DEVICE_CONNECT = "DeviceConnect"


class WhichKey(StrEnum):
    """What is rotated."""

    PRIMARY = "primary"
    SECONDARY = "secondary"
    SWAP = "swap"


async def find_policy(hub: Hub, name: str) -> Document:
    """The policy of this name. Raises Failure."""
    policies: list[Document] = await hub.call("GET", "admin", "policies")
    for policy in policies:
        if policy["name"] == name:
            return policy
    names = ", ".join(policy["name"] for policy in policies)
    raise Failure(ExitCode.NOT_FOUND, f"there is no policy {name!r}; there are {names}")


def without_keys(policy: Document) -> Document:
    return {"name": policy["name"], "rights": policy["rights"]}


def _show(policy: Document, keys: bool, as_json: bool) -> None:
    shown = policy if keys else without_keys(policy)
    if as_json:
        print_json(shown)
    else:
        print_fields(shown)


@policy_app.command("list", epilog="Example: methodhub policy list")
def policy_list(data_dir: DataDir = None, as_json: Json = False) -> None:
    """List the policies and their rights; never their keys."""
    policies = run(data_dir_of(data_dir), lambda hub: hub.call("GET", "admin", "policies"))
    if as_json:
        print_json([without_keys(policy) for policy in policies])
    else:
        print_table(("policy", "rights"), [[policy["name"], ", ".join(policy["rights"])] for policy in policies])


@policy_app.command("show", epilog="Example: methodhub policy show service --keys")
def policy_show(name: Name, keys: Keys = False, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Show one policy: its rights, and with --keys both keys."""
    _show(run(data_dir_of(data_dir), lambda hub: find_policy(hub, name)), keys, as_json)


@policy_app.command("create", epilog="Example: methodhub policy create dashboards --right RegistryRead")
def policy_create(
    name: Name,
    right: Annotated[
        list[RightName],
        typer.Option(
            "--right",
            metavar="RIGHT",
            help="What it allows: RegistryRead, RegistryWrite (with RegistryRead), ServiceConnect or DeviceConnect.",
        ),
    ],
    keys: Keys = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Create a policy with two new keys. It holds at once."""
    body = {"rights": [each.value for each in right]}
    _show(run(data_dir_of(data_dir), lambda hub: hub.call("PUT", "admin", "policies", name, body=body)), keys, as_json)


@policy_app.command("rotate", epilog="Example: methodhub policy rotate service --key secondary")
def policy_rotate(
    name: Name,
    key: Annotated[
        WhichKey,
        typer.Option("--key", metavar="WHICH", help="What is replaced: primary or secondary; or swap the two."),
    ] = WhichKey.PRIMARY,
    keys: Keys = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Replace one key of a policy; the other goes on. Tokens and connections of the replaced key end at once."""
    body = {"key": key.value}
    path = ("admin", "policies", name, "rotate")
    _show(run(data_dir_of(data_dir), lambda hub: hub.call("POST", *path, body=body)), keys, as_json)


@policy_app.command("delete", epilog="Example: methodhub policy delete dashboards")
def policy_delete(name: Name, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Delete a policy. Its tokens and the connections that it let in end at once. The last one stays."""
    run(data_dir_of(data_dir), lambda hub: hub.call("DELETE", "admin", "policies", name))
    if as_json:
        print_json({"deleted": True})
    else:
        typer.echo(f"deleted {name}")
