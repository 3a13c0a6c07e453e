"""The verb `invoke`: one method call through the running hub, with the bytes of payload and answer untouched."""

# ruff: noqa: PLC0415 - slow imports stay inside the verbs that need them, so that --help is quick

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from methodhub.cli.exit_codes import ExitCode, Failure
from methodhub.cli.hub import Hub, run
from methodhub.cli.options import DataDir, DeviceId, Json, data_dir_of, not_empty


def read_payload(text: str | None, file: Path | None, name: str = "--payload") -> bytes | None:
    """The payload as JSON text, None where none was given. `name`: what it is called in a failure. Raises Failure
    unless it is one JSON value."""
    if text is not None and file is not None:
        raise Failure(ExitCode.USAGE, "give --payload or --payload-file, not both")
    if file is not None:
        try:
            return check_json(file.read_bytes(), str(file))
        except OSError as error:
            raise Failure(ExitCode.USAGE, f"--payload-file {file}: {error.strerror}") from None
    if text == "-":
        return check_json(sys.stdin.buffer.read(), "stdin")
    return None if text is None else check_json(text.encode("utf-8", "surrogateescape"), name)


def check_json(data: bytes, where: str) -> bytes:
    from methodhub.iothub.payload import json_error

    problem = json_error(data)
    if problem is not None:
        hint = """ (a text needs its own quotes: '"on"')""" if where == "--payload" else ""
        raise Failure(ExitCode.USAGE, f"{where}: {problem}{hint}")
    return data


def build_body(method: str, payload: bytes | None, response_timeout: int | None, connect_timeout: int | None) -> bytes:
    """The body of `wire/service.md` 1.3. What was not given is absent, so that the hub's defaults hold."""
    import msgspec

    body: dict[str, object] = {"methodName": method}
    if response_timeout is not None:
        body["responseTimeoutInSeconds"] = response_timeout
    if connect_timeout is not None:
        body["connectTimeoutInSeconds"] = connect_timeout
    if payload is not None:
        body["payload"] = msgspec.Raw(payload)
    return msgspec.json.encode(body)


def show_answer(answer: bytes) -> None:
    """Status and payload, a line each; an answer that is no JSON (the setting paste_invalid_answers) as it came."""
    import msgspec

    try:
        fields = msgspec.json.decode(answer, type=dict[str, msgspec.Raw])
        lines = b"status: %b\npayload: %b" % (bytes(fields["status"]), bytes(fields["payload"]))
    except (ValueError, KeyError, RecursionError):
        lines = answer
    typer.echo(lines)


def invoke(
    device: DeviceId,
    method: Annotated[str, typer.Argument(metavar="METHOD", callback=not_empty, help="Name of the method.")],
    module: Annotated[
        str | None,
        typer.Option("--module", metavar="ID", callback=not_empty, help="Call this module of the device instead."),
    ] = None,
    payload: Annotated[
        str | None, typer.Option(metavar="JSON", help="Payload; - reads it from stdin. Default: no payload at all.")
    ] = None,
    payload_file: Annotated[Path | None, typer.Option(metavar="FILE", help="File that holds the payload.")] = None,
    response_timeout: Annotated[
        int | None, typer.Option(min=0, metavar="SECONDS", help="How long the device may take. Default: the hub's.")
    ] = None,
    connect_timeout: Annotated[
        int | None,
        typer.Option(min=0, metavar="SECONDS", help="How long to wait for the device to connect. Default: the hub's."),
    ] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Call a method on a device or module and print its status and payload."""
    body = build_body(method, read_payload(payload, payload_file), response_timeout, connect_timeout)
    path = ("twins", device, *(("modules", module) if module else ()), "methods")

    async def work(hub: Hub) -> bytes:
        return await hub.send("POST", *path, content=body)

    answer = run(data_dir_of(data_dir), work, demand_running=True)
    if as_json:
        typer.echo(answer)
    else:
        show_answer(answer)
