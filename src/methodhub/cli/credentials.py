"""The verbs that hand out credentials: connection strings and tokens."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated

import typer

from methodhub.cli.exit_codes import ExitCode, Failure
from methodhub.cli.hub import Hub, run
from methodhub.cli.identities import path_of
from methodhub.cli.options import DataDir, Json, OfModule, data_dir_of, not_empty, note, print_json
from methodhub.cli.policies import find_policy
from methodhub.core.identity import Target
from methodhub.iothub.sas import build_token

PolicyName = Annotated[
    str | None, typer.Option("--policy", metavar="NAME", callback=not_empty, help="Of this shared access policy.")
]
OfDevice = Annotated[str | None, typer.Option("--device", metavar="ID", callback=not_empty, help="Of this device.")]
Secondary = Annotated[bool, typer.Option("--secondary", help="With the secondary key.")]
Hostname = Annotated[
    str | None, typer.Option("--hostname", metavar="NAME", help="The hub's name in it. Default: the hub's first name.")
]

HTTPS = 443


@dataclass(frozen=True, slots=True)
class Holder:
    """Who a credential is for: a policy or an identity."""

    policy: str | None
    target: Target | None

    @classmethod
    def of(cls, policy: str | None, device: str | None, module: str | None) -> Holder:
        if (policy is None) == (device is None):
            raise Failure(ExitCode.USAGE, "give either --policy NAME or --device ID")
        if module is not None and device is None:
            raise Failure(ExitCode.USAGE, "--module belongs to --device")
        return cls(policy, None if device is None else Target(device, module or ""))


async def find_key(hub: Hub, holder: Holder, secondary: bool) -> str | None:
    """The key, or None for an identity that proves itself by a certificate."""
    name = "secondaryKey" if secondary else "primaryKey"
    if holder.target is None:
        assert holder.policy is not None
        return str((await find_policy(hub, holder.policy))[name])
    authentication = (await hub.call("GET", *path_of(holder.target)))["authentication"]
    return str(authentication["symmetricKey"][name]) if authentication.get("type", "sas") == "sas" else None


def format_connection_string(host: str, holder: Holder, key: str | None) -> str:
    """What the SDKs take (`wire/service.md` 2.4)."""
    parts = [f"HostName={host}"]
    if holder.target is None:
        parts.append(f"SharedAccessKeyName={holder.policy}")
    else:
        parts.append(f"DeviceId={holder.target.device_id}")
        parts += [f"ModuleId={holder.target.module_id}"] if holder.target.module_id else []
    parts.append("x509=true" if key is None else f"SharedAccessKey={key}")
    return ";".join(parts)


def _host_with_port(host: str, port: int | None, holder: Holder) -> str:
    """The name for a connection string. Only back ends see the port, and only some understand one; a note says so."""
    if holder.target is not None:
        return host
    if port is None:
        note("note: no hub is running, so its port is not known; the string is for port 443")
        return host
    if port == HTTPS:
        return host
    note(
        f"note: HTTPS is on port {port}, not 443. Python (azure-iot-hub) and az take a port in HostName; "
        "the Node, C#, Java and C service SDKs do not."
    )
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def connection_string(
    policy: PolicyName = None,
    device: OfDevice = None,
    module: OfModule = None,
    secondary: Secondary = False,
    hostname: Hostname = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Print a connection string, and nothing else, of a policy (for back ends), a device or a module."""
    holder = Holder.of(policy, device, module)

    async def work(hub: Hub) -> str:
        facts = await hub.call("GET", "admin", "hub")
        key = await find_key(hub, holder, secondary)
        host = hostname or _host_with_port(facts["hostnames"][0], facts["httpsPort"], holder)
        return format_connection_string(host, holder, key)

    text = run(data_dir_of(data_dir), work)
    if holder.target is not None and ";" in holder.target.device_id + holder.target.module_id:
        note("note: SDKs split a connection string at each ;, so they cannot read this id from it")
    if as_json:
        print_json({"connectionString": text})
    else:
        typer.echo(text)


def sas_token(
    policy: PolicyName = None,
    device: OfDevice = None,
    module: OfModule = None,
    duration: Annotated[int, typer.Option(min=1, metavar="SECONDS", help="How long it is valid.")] = 3600,
    secondary: Secondary = False,
    resource: Annotated[
        str | None,
        typer.Option(metavar="URI", help="What it is for, not encoded. Default: the whole hub, or the one identity."),
    ] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Print a shared access signature, as `az iot hub generate-sas-token` gives it."""
    holder = Holder.of(policy, device, module)

    async def work(hub: Hub) -> str:
        host = (await hub.call("GET", "admin", "hub"))["hostnames"][0]
        key = await find_key(hub, holder, secondary)
        if key is None:
            raise Failure(ExitCode.REFUSED, f"{holder.target} proves itself by a certificate; it has no key")
        own = host if holder.target is None else "/".join((host, *path_of(holder.target)))
        return build_token(resource or own, key, int(time.time()) + duration, holder.policy)

    token = run(data_dir_of(data_dir), work)
    if as_json:
        print_json({"sas": token})
    else:
        typer.echo(token)
