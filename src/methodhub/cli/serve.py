"""The verb `serve`: settings from every source, logs, then the hub until it is stopped."""

# ruff: noqa: PLC0415 - slow imports stay inside the verbs that need them, so that --help is quick

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperOption

from methodhub.cli.exit_codes import ExitCode, Failure
from methodhub.cli.options import load_settings

if TYPE_CHECKING:
    from methodhub.server import ReadyFacts


class SettingsCommand(TyperCommand):
    """A command whose flags are settings: their help comes from the one table, read only when help is asked for."""

    def get_help(self, ctx: Any) -> str:
        self.describe()
        return super().get_help(ctx)

    def describe(self) -> None:
        from methodhub.config import Settings, default_text

        fields = dict(Settings.model_fields)
        for parameter in self.params:
            if isinstance(parameter, TyperOption) and parameter.name in fields:
                default = default_text(parameter.name)
                parameter.help = fields.pop(parameter.name).description
                parameter.help = f"{parameter.help} Default: {default}." if default else parameter.help
        for parameter in self.params:
            if isinstance(parameter, TyperOption) and parameter.name == "assignments":
                parameter.help = f"Any other setting; repeatable. They are: {', '.join(fields)}."


def ready_line(facts: ReadyFacts, plaintext: bool) -> str:
    """What `serve` says once every listener accepts. Never a key."""
    https, mqtts, amqps = ("http", "mqtt", "amqp") if plaintext else ("https", "mqtts", "amqps")
    host = f"[{facts.hostname}]" if ":" in facts.hostname else facts.hostname
    data = "identities in memory only" if facts.in_memory else f"data in {facts.data_dir}"
    amqp = "" if facts.amqp_port is None else f" {amqps}://{host}:{facts.amqp_port}"
    return (
        f"MethodHub is ready: {https}://{host}:{facts.https_port} {mqtts}://{host}:{facts.mqtt_port}{amqp}, {data}, "
        f"CA certificate {facts.ca_file}"
    )


def ready_json(facts: ReadyFacts) -> str:
    return json.dumps(
        {
            "ready": True,
            "hostname": facts.hostname,
            "httpsPort": facts.https_port,
            "mqttPort": facts.mqtt_port,
            "amqpPort": facts.amqp_port,
            "dataDir": str(facts.data_dir),
            "inMemory": facts.in_memory,
            "caFile": str(facts.ca_file),
            "notes": list(facts.notes),
        }
    )


def serve(
    data_dir: Annotated[Path | None, typer.Option("--data-dir", metavar="PATH")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="TOML file of settings. Default: METHODHUB_CONFIG.")
    ] = None,
    in_memory: Annotated[bool | None, typer.Option("--in-memory/--no-in-memory")] = None,
    database_url: Annotated[str | None, typer.Option("--database-url", metavar="URL")] = None,
    nats_url: Annotated[str | None, typer.Option("--nats-url", metavar="URL")] = None,
    workers: Annotated[int | None, typer.Option("--workers", metavar="N")] = None,
    hostname: Annotated[list[str] | None, typer.Option("--hostname", metavar="NAME")] = None,
    bind: Annotated[str | None, typer.Option("--bind", metavar="ADDRESS")] = None,
    https_port: Annotated[int | None, typer.Option("--https-port", metavar="PORT")] = None,
    mqtt_port: Annotated[int | None, typer.Option("--mqtt-port", metavar="PORT")] = None,
    amqp_port: Annotated[int | None, typer.Option("--amqp-port", metavar="PORT")] = None,
    log_level: Annotated[str | None, typer.Option("--log-level", metavar="LEVEL")] = None,
    log_format: Annotated[str | None, typer.Option("--log-format", metavar="FORMAT")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any other setting; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the ready line as JSON.")] = False,
) -> None:
    """Run the hub until it is stopped (Ctrl-C or SIGTERM; a second time: at once)."""
    flags = {
        "data_dir": data_dir,
        "in_memory": in_memory,
        "database_url": database_url,
        "nats_url": nats_url,
        "workers": workers,
        "hostname": hostname or None,
        "bind": bind,
        "https_port": https_port,
        "mqtt_port": mqtt_port,
        "amqp_port": amqp_port,
        "log_level": log_level,
        "log_format": log_format,
    }
    settings = load_settings(flags, config=config, assignments=assignments or ())

    from methodhub import log
    from methodhub.server import StartError
    from methodhub.server import serve as run_hub

    log.configure(settings.log_level, settings.log_format)

    def on_ready(facts: ReadyFacts) -> None:
        if as_json:
            typer.echo(ready_json(facts))
            return
        for line in facts.notes:
            typer.echo(line)
        typer.echo(ready_line(facts, settings.plaintext))

    try:
        exit_code = run_hub(settings, on_ready)
    except StartError as error:
        raise Failure(ExitCode.NO_HUB, str(error)) from None
    raise typer.Exit(exit_code)
