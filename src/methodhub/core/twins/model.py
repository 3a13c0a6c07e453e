"""A twin as values: tags of the back end's, and two sections of properties with what changed when."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

from methodhub.core.identity import Target

FRESH_VERSION = 1
"""Of a twin that was never changed, which no store holds."""


@dataclass(frozen=True, slots=True)
class Section:
    """Desired or reported properties: a JSON object, its `$metadata` in the same shape, and its `$version`."""

    values: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    version: int = FRESH_VERSION


@dataclass(frozen=True, slots=True)
class Twin:
    """`version` counts every change of tags or desired or reported properties; a store replaces by it."""

    target: Target
    version: int = FRESH_VERSION
    tags: dict[str, Any] = field(default_factory=dict)
    desired: Section = field(default_factory=Section)
    reported: Section = field(default_factory=Section)
    model_id: str | None = None

    @property
    def etag(self) -> str:
        """`AAAAAAAAAAE=` for a fresh twin (`wire/service.md` 6). [HUB-twin-etag] What the device reports leaves it as
        it is: a back end would never get through to a busy one."""
        changes = self.version - self.reported.version + FRESH_VERSION
        return base64.b64encode(changes.to_bytes(8, "big")).decode()
