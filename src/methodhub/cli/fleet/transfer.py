"""The verbs `export` and `import`: a hub as one file, to move it to another database or machine."""

# ruff: noqa: PLC0415 - slow imports stay inside the verbs that need them, so that --help is quick

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from methodhub.cli.exit_codes import ExitCode, Failure
from methodhub.cli.options import DataDir, Json, load_settings, note, print_json

Config = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="TOML file of settings. Default: METHODHUB_CONFIG.")
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        metavar="URL",
        help="PostgreSQL database of the hub. Default: METHODHUB_DATABASE_URL, else the SQLite file in the data "
        "directory.",
    ),
]
NOT_COUNTED = ("secrets",)


def _settings(data_dir: Path | None, config: Path | None, database_url: str | None) -> Any:
    flags = {"data_dir": data_dir, "database_url": database_url, "in_memory": False}
    return load_settings(flags, config=config)


def _told(counts: Mapping[str, int]) -> str:
    parts = [f"{count} {name.replace('_', ' ')}" for name, count in counts.items() if count and name not in NOT_COUNTED]
    return ", ".join(parts) or "an empty hub"


def export_hub(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to make, for its owner alone; -: stdout.")],
    database_url: DatabaseUrl = None,
    config: Config = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Write the whole hub to a file that `methodhub import` reads, with every key. The hub may run meanwhile: what it
    writes after the start is left out."""
    import asyncio

    from methodhub.server import StartError
    from methodhub.server.transfer import export_hub, private_file

    settings = _settings(data_dir, config, database_url)
    try:
        if str(file) == "-":
            counts = asyncio.run(export_hub(settings, sys.stdout.buffer))
            sys.stdout.flush()
        else:
            with private_file(file) as out:
                counts = asyncio.run(export_hub(settings, out))
    except FileExistsError:
        raise Failure(ExitCode.CONFLICT, f"{file} exists already; choose another name") from None
    except OSError as error:
        raise Failure(ExitCode.REFUSED, f"cannot write {file}: {error.strerror or error}") from None
    except StartError as error:
        raise Failure(ExitCode.NO_HUB, str(error)) from None
    if as_json and str(file) != "-":
        print_json({"file": str(file), "counts": counts})
    else:
        note(f"Exported {_told(counts)}. The export holds every key of the hub: keep it as you keep those.")


def import_hub(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `methodhub export` wrote.")],
    database_url: DatabaseUrl = None,
    config: Config = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Read what `methodhub export` wrote into an empty database, on which no hub was started yet: all of it, or
    nothing."""
    import asyncio

    from methodhub.server import StartError
    from methodhub.server.transfer import import_hub
    from methodhub.store.transfer.lines import TransferError

    settings = _settings(data_dir, config, database_url)
    try:
        with file.open("rb") as source:
            counts = asyncio.run(import_hub(settings, source))
    except OSError as error:
        raise Failure(ExitCode.USAGE, f"cannot read {file}: {error.strerror or error}") from None
    except TransferError as error:
        raise Failure(ExitCode.REFUSED, f"{file} was not imported: {error}. Nothing was changed.") from None
    except StartError as error:
        raise Failure(ExitCode.NO_HUB, str(error)) from None
    if as_json:
        print_json({"counts": counts})
    else:
        note(f"Imported {_told(counts)}.")
