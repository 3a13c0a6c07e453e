"""The twin of a device as long as twins are not kept: empty, but answered, so that apps which read it stay whole."""

from __future__ import annotations

import msgspec


class EmptyTwin:
    """Answers twin requests of one connection; counts the version of the reported properties while it lasts."""

    __slots__ = ("_version",)

    def __init__(self) -> None:
        self._version = 1

    def get(self) -> tuple[int, None, bytes]:
        """Status, no version, and the body (`wire/device.md` 1.9)."""
        return 200, None, b'{"desired":{"$version":1},"reported":{"$version":%d}}' % self._version

    def patch_reported(self, patch: bytes) -> tuple[int, int | None, bytes]:
        """204 and the new version; 400 for a patch that is no JSON object."""
        try:
            is_object = isinstance(msgspec.json.decode(patch), dict)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            is_object = False
        if not is_object:
            return 400, None, b""
        self._version += 1
        return 204, self._version, b""
