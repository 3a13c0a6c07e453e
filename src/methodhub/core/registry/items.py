"""What a bulk request asks for, as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from methodhub.core.errors import HubError
from methodhub.core.identity import Identity, Target
from methodhub.core.twins.rules import Object


class ImportMode(StrEnum):
    """What an item asks for (`wire/service.md` 3.4)."""

    CREATE = "create"
    UPDATE = "update"
    UPDATE_IF_MATCH = "updateIfMatchETag"
    DELETE = "delete"
    DELETE_IF_MATCH = "deleteIfMatchETag"
    UPDATE_TWIN = "updateTwin"
    UPDATE_TWIN_IF_MATCH = "updateTwinIfMatchETag"


@dataclass(frozen=True, slots=True)
class BulkItem:
    """`identity`: as a PUT would describe it. An etag is demanded by the modes that name it, and unused by the others;
    `twin_etag` is looked at by `updateIfMatchETag` where it is given. `error`: why the item could not be read."""

    target: Target
    mode: ImportMode
    identity: Identity | None = None
    etag: str | None = None
    twin_etag: str | None = None
    tags: Object | None = None
    desired: Object | None = None
    error: HubError | None = None
