"""The file: one line of JSON that says what it is, then a line for each table and each row, then one with a checksum of
all before it. Knows neither a database nor a path.

    {"format": "methodhub-export", "version": 1, ..., "counts": {"identities": 2, ...}, "authority": "PEM" or null}
    {"table": "identities", "columns": ["device_id", ...]}
    ["d1", ...]
    ["d2", ...]
    {"table": "policies", ...}
    ...
    {"end": true, "sha256": "..."}
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, Protocol

from sqlalchemy import Boolean, Column, Float, Integer, LargeBinary, Table

from methodhub.store.tables import SCHEMA_VERSION

FORMAT = "methodhub-export"
VERSION = 1
MAX_LINE = 16 * 1024 * 1024
"""Bytes. The largest row has an answer of 256 KB in it."""
WARNING = "This file holds every key of the hub. Whoever reads it can act as the hub and as each of its devices."


class TransferError(Exception):
    """The export cannot be used, or not here. The text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Header:
    """`methodhub` is the version that wrote it, `schema` that of its tables; `authority`: PEM, certificate and key."""

    methodhub: str
    counts: dict[str, int]
    authority: str | None
    schema: str = SCHEMA_VERSION
    version: int = VERSION
    format: str = FORMAT
    warning: str = WARNING


class Sink(Protocol):
    def write(self, data: bytes, /) -> object: ...


class Writer:
    def __init__(self, out: Sink, header: Header) -> None:
        self._out = out
        self._digest = hashlib.sha256()
        self._write(asdict(header))

    def begin(self, table: Table) -> None:
        self._write({"table": table.name, "columns": table.columns.keys()})

    def rows(self, rows: Iterable[Sequence[Any]]) -> None:
        for row in rows:
            self._write([base64.b64encode(cell).decode() if isinstance(cell, bytes) else cell for cell in row])

    def end(self) -> None:
        self._write({"end": True, "sha256": self._digest.hexdigest()})

    def _write(self, value: object) -> None:
        line = json.dumps(value, separators=(",", ":")).encode() + b"\n"
        self._digest.update(line)
        self._out.write(line)


class Reader:
    """Raises TransferError for what no Writer of this version wrote; some of it only at the end, so that nothing of the
    rows may be kept before `batches` is exhausted."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._digest = hashlib.sha256()
        self.header = _header(self._line())

    def batches(self, tables: Sequence[Table], size: int) -> Iterator[tuple[Table, list[dict[str, Any]]]]:
        """Rows of the tables, in their order, so many at once."""
        for table in tables:
            self._expect({"table": table.name, "columns": table.columns.keys()})
            cells = [(column.name, _reader_of(column)) for column in table.columns]
            left = self.header.counts[table.name]
            while left:
                yield table, [self._row(cells) for _ in range(min(size, left))]
                left -= min(size, left)
        self._expect({"end": True, "sha256": self._digest.hexdigest()})
        if self._source.read(1):
            raise TransferError("there is something behind the end of the export")

    def _row(self, cells: list[tuple[str, Callable[[Any], Any]]]) -> dict[str, Any]:
        row = _parse(self._line())
        if not isinstance(row, list) or len(row) != len(cells):
            raise TransferError("it is damaged: a row is missing or of another shape than its table")
        return {name: read(cell) for (name, read), cell in zip(cells, row, strict=True)}

    def _expect(self, wanted: object) -> None:
        # The checksum is of the lines before: compared before this line is added.
        if _parse(self._line()) != wanted:
            raise TransferError("it is damaged: its lines do not add up to what was written")

    def _line(self) -> bytes:
        line = self._source.readline(MAX_LINE)
        if not line.endswith(b"\n"):
            raise TransferError("it is cut off" if len(line) < MAX_LINE else "it is damaged: a line does not end")
        self._digest.update(line)
        return line


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        raise TransferError("it is damaged: a line is no JSON") from None


def _header(line: bytes) -> Header:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise TransferError("it is no export of MethodHub")
    version, schema, by = found.get("version"), found.get("schema"), found.get("methodhub")
    if not isinstance(version, int) or not isinstance(schema, str) or not isinstance(by, str):
        raise TransferError("it is damaged: its first line is not whole")
    if version > VERSION or schema > SCHEMA_VERSION:
        raise TransferError(f"it was written by a newer MethodHub ({by}): import it with that version")
    if schema < SCHEMA_VERSION:
        raise TransferError(
            f"it was written by an older MethodHub ({by}): import it with that version, then start this one on the data"
        )
    try:
        header = Header(**found)
    except TypeError:
        raise TransferError("it is damaged: its first line is not whole") from None
    if not _is_whole(header):
        raise TransferError("it is damaged: its first line is not whole")
    return header


def _is_whole(header: Header) -> bool:
    counts = header.counts
    return (
        isinstance(counts, dict)
        and all(type(count) is int and count >= 0 for count in counts.values())
        and (header.authority is None or isinstance(header.authority, str))
    )


def _reader_of(column: Column[Any]) -> Callable[[Any], Any]:
    kinds: tuple[type, ...]
    if isinstance(column.type, Boolean):
        kinds = (bool,)
    elif isinstance(column.type, Integer):
        kinds = (int,)
    elif isinstance(column.type, Float):
        kinds = (float, int)
    else:
        kinds = (str,)
    is_bytes, nullable, name = isinstance(column.type, LargeBinary), column.nullable, str(column)

    def read(cell: Any) -> Any:
        if type(cell) not in kinds:
            if cell is None and nullable:
                return None
            raise TransferError(f"it is damaged: {name} cannot hold what stands there")
        try:
            return base64.b64decode(cell, validate=True) if is_bytes else cell
        except ValueError:
            raise TransferError(f"it is damaged: {name} is not in base64") from None

    return read
