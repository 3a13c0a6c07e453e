"""The verb `ca`: where the hub's CA certificate lies, and how each client is told to trust it."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from methodhub.cli.exit_codes import ExitCode, Failure
from methodhub.cli.hub import run
from methodhub.cli.options import DataDir, Json, data_dir_of, print_json


def advice(ca_file: Path) -> dict[str, str]:
    """Client -> what to type (`wire/service.md` 2.4, `wire/device.md` 6)."""
    path = quote(str(ca_file))
    text = repr(str(ca_file))
    return {
        "Python, device": f"create_from_connection_string(..., server_verification_cert=open({text}).read())",
        "Python, service": f"export REQUESTS_CA_BUNDLE={path}",
        "Node, device": f"client.setOptions({{ca: fs.readFileSync({text}, 'utf8')}})   # before open()",
        "Node, service": f"export NODE_EXTRA_CA_CERTS={path}",
        "curl": f"curl --cacert {path} ...",
    }


def ca(
    pem: Annotated[bool, typer.Option("--pem", help="Print the certificate itself, and nothing else.")] = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Print where the CA certificate lies and how each SDK is told to trust it."""
    facts = run(data_dir_of(data_dir), lambda hub: hub.call("GET", "admin", "hub"))
    ca_file = Path(facts["caFile"])
    try:
        text = ca_file.read_text() if pem else ""
    except OSError as error:
        raise Failure(
            ExitCode.NO_HUB, f"cannot read {ca_file}: {error.strerror}; `methodhub serve` makes it on its first start"
        ) from None
    if as_json:
        print_json({"caFile": str(ca_file), "trust": advice(ca_file)} | ({"pem": text} if pem else {}))
    elif pem:
        typer.echo(text, nl=not text.endswith("\n"))
    else:
        typer.echo(str(ca_file))
        for client, line in advice(ca_file).items():
            typer.echo(f"\n{client}:\n    {line}")
