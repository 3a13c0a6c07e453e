"""The command `methodhub`: puts the verbs together, and turns every failure into one line and an exit code."""

# ruff: noqa: PLC0415 - slow imports stay inside the verbs that need them, so that --help is quick

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from methodhub import __version__
from methodhub.cli.certificates import authority_app
from methodhub.cli.credentials import connection_string, sas_token
from methodhub.cli.exit_codes import ExitCode, Failure
from methodhub.cli.fleet.imports import device_import
from methodhub.cli.fleet.jobs import job_app
from methodhub.cli.fleet.queries import query
from methodhub.cli.fleet.transfer import export_hub, import_hub
from methodhub.cli.fleet.twins import twin_app
from methodhub.cli.identities import device_app, module_app
from methodhub.cli.invoke import invoke
from methodhub.cli.options import DataDir, Json, note, print_json
from methodhub.cli.policies import policy_app
from methodhub.cli.serve import SettingsCommand, serve
from methodhub.cli.trust import ca

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A self-hosted hub, wire-compatible with the direct methods of Azure IoT Hub.",
    epilog="Example: methodhub serve --hostname hub.example --bind 0.0.0.0",
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"methodhub {__version__}")
        raise typer.Exit(ExitCode.DONE)


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Options of the command itself; `version` is answered before any verb runs."""


def version(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Print the version of this command."""
    if as_json:
        print_json({"version": __version__})
    else:
        typer.echo(f"methodhub {__version__}")


app.command(cls=SettingsCommand, epilog="Example: methodhub serve --hostname hub.example --bind 0.0.0.0")(serve)
device_app.command("import", epilog="Example: methodhub device import devices.csv")(device_import)
app.add_typer(device_app, name="device")
app.add_typer(module_app, name="module")
app.add_typer(twin_app, name="twin")
app.add_typer(job_app, name="job")
app.add_typer(policy_app, name="policy")
app.add_typer(authority_app, name="ca-certificate")
app.command(epilog="Example: methodhub connection-string --policy service")(connection_string)
app.command(epilog="Example: methodhub sas-token --policy service --duration 600")(sas_token)
app.command(epilog="""Example: methodhub invoke thermostat-1 reboot --payload '{"delay": 5}'""")(invoke)
app.command(epilog="""Example: methodhub query "SELECT deviceId FROM devices WHERE tags.site = 'north'\"""")(query)
app.command(epilog="Example: methodhub ca --pem > methodhub-ca.pem")(ca)
app.command("export", epilog="Example: methodhub export hub.jsonl")(export_hub)
app.command("import", epilog="Example: methodhub import hub.jsonl --database-url postgresql://...")(import_hub)
app.command(epilog="Example: methodhub version --json")(version)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code. Whatever goes wrong is one line on stderr, never a traceback."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        result = typer.main.get_command(app).main(arguments, prog_name="methodhub", standalone_mode=False)
    except Failure as failure:
        return _fail(failure, "--json" in arguments)
    except typer.TyperException as error:
        return _usage(error, "--json" in arguments)
    except (typer.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    except SystemExit:
        # Whoever read the output has seen enough, such as `head`; but a hub that serves has not ended well.
        return ExitCode.UNEXPECTED if "serve" in arguments[:1] else ExitCode.DONE
    except Exception as error:  # noqa: BLE001 - the last resort: a line instead of a traceback
        from methodhub.log import mask_text

        text = mask_text(f"unexpected {type(error).__name__}: {error}").replace("\n", " ")
        return _fail(Failure(ExitCode.UNEXPECTED, text), "--json" in arguments)
    return int(result) if isinstance(result, int) else ExitCode.DONE


def _fail(failure: Failure, as_json: bool) -> int:
    if as_json:
        note(json.dumps(failure.as_json(), ensure_ascii=False))
    else:
        for line in failure.as_text().splitlines():
            note(f"methodhub: {line}")
    return failure.exit_code


def _usage(error: typer.TyperException, as_json: bool) -> int:
    """Typer's own complaint about the command line. It shows help by raising, where a group got no verb."""
    message = error.format_message()
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        note(message)
        return ExitCode.USAGE
    message = " ".join(message.split()).replace("Value error, ", "")
    hint = f" (see: {context.command_path} --help)" if context is not None else ""
    return _fail(Failure(ExitCode.USAGE, f"{message}{hint}"), as_json)
