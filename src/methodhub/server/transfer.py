"""A hub as one file, and a hub out of such a file: its rows and its authority. Knows no verb."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import Connection, insert

from methodhub import __version__
from methodhub.config import Settings
from methodhub.net.certificates import CertificateError, authority_text, install_authority, read_authority
from methodhub.process import DataDirectory, StartError
from methodhub.server.certificates import CA_NAME
from methodhub.server.domain import DATABASE_NAME
from methodhub.store.database import open_database
from methodhub.store.schema import StoreError
from methodhub.store.tables import secrets as secret_rows
from methodhub.store.transfer.lines import Header, Reader, TransferError, Writer
from methodhub.store.transfer.tables import AUTHORITY, put, read_rows, snapshot, update_schema, write_rows


def where_of(settings: Settings) -> Path | str:
    return settings.database_url or settings.data_dir / DATABASE_NAME


async def export_hub(settings: Settings, out: BinaryIO) -> dict[str, int]:
    """Write the hub, whether it runs or not. Returns how many rows of each kind. Raises StartError, OSError."""
    where = where_of(settings)
    sink = _Sink(out)
    try:
        if isinstance(where, Path) and not where.exists():
            raise StartError(f"There is no database {where}. For one in PostgreSQL, give its --database-url.")
        try:
            directory = DataDirectory(settings.data_dir)
        except StartError:
            pass  # a hub runs: its schema is its own business
        else:
            try:
                await update_schema(where)
            finally:
                directory.release()
        own = read_authority(settings.data_dir)

        def start(counts: dict[str, int], shared: str | None) -> Writer:
            authority = shared or (authority_text(own).decode() if own is not None else None)
            return Writer(sink, Header(methodhub=__version__, counts=counts, authority=authority))

        async with snapshot(where) as read:
            counts: dict[str, int] = await read(lambda connection: write_rows(connection, start))
    except (StoreError, CertificateError) as error:
        if sink.failure is not None:
            raise sink.failure from None
        raise StartError(str(error)) from error
    return counts


class _Sink:
    """Where the export is written. Its errors are not the database's, which is read meanwhile."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self.failure: OSError | None = None

    def write(self, data: bytes) -> None:
        try:
            self._out.write(data)
        except OSError as failure:
            self.failure = failure
            raise


async def import_hub(settings: Settings, source: BinaryIO) -> dict[str, int]:
    """[HUB-export] Read a hub into an empty database: all of it, or nothing. Returns how many rows of each kind.

    Raises StartError, TransferError.
    """
    header = Reader(source).header
    directory = DataDirectory(settings.data_dir)
    try:
        _check_authority(settings, header)
        database = await open_database(where_of(settings))
        try:
            await put(database, lambda connection: _read(connection, settings, source))
        finally:
            await database.close()
    except (StoreError, CertificateError, OSError) as error:
        raise StartError(str(error)) from error
    finally:
        directory.release()
    return header.counts


def _read(connection: Connection, settings: Settings, source: BinaryIO) -> None:
    """May be run again from its beginning. The commit comes after it, as the last that can fail."""
    source.seek(0)
    reader = Reader(source)
    read_rows(connection, reader)
    if reader.header.authority is not None:
        text = reader.header.authority.encode()
        if settings.database_url is not None:
            connection.execute(insert(secret_rows), [{"name": AUTHORITY, "value": text}])
        install_authority(settings.data_dir, text)


def _check_authority(settings: Settings, header: Header) -> None:
    own = read_authority(settings.data_dir)
    if own is not None and header.authority is not None and authority_text(own).decode() != header.authority:
        raise TransferError(
            f"{settings.data_dir / CA_NAME} is another authority than that of the export. Move it and ca-key.pem away, "
            "or choose another --data-dir"
        )


@contextmanager
def private_file(path: Path) -> Iterator[BinaryIO]:
    """[HUB-file-modes] A new file of this name, for its owner alone: there when all is written, and on the disk; else
    not at all. Raises FileExistsError, OSError."""
    if path.exists():
        raise FileExistsError(f"{path} exists")
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)
            yield file
            file.flush()
            os.fsync(descriptor)
        os.link(beside, path)  # unlike a rename, never over another one
    finally:
        beside.unlink()
