"""Request bodies: bounded when they arrive and when they are unpacked."""

from __future__ import annotations

import zlib

from starlette.requests import ClientDisconnect, Request

from methodhub.core.errors import ErrorCode, HubError


def too_large(limit: int, code: ErrorCode = ErrorCode.MessageTooLarge) -> HubError:
    """A call's body has a code of its own."""
    return HubError(code, f"The body has more than {limit} bytes.")


def unpack(
    body: bytes, encoding: str | None, limit: int, code_if_too_large: ErrorCode = ErrorCode.MessageTooLarge
) -> bytes:
    """[HUB-gzip] The body without its Content-Encoding. Raises 400000, 415000 and the code for too large."""
    name = (encoding or "identity").strip().lower()
    if name == "identity":
        return body
    if name not in {"gzip", "x-gzip"}:
        raise HubError(
            ErrorCode.GenericUnsupportedMediaType, f"The Content-Encoding {name[:40]!r} is not understood; send gzip."
        )
    unpacker = zlib.decompressobj(wbits=31)
    try:
        unpacked = unpacker.decompress(body, limit + 1)
    except zlib.error:
        raise HubError(ErrorCode.GenericBadRequest, "The body is not gzip, as its Content-Encoding says.") from None
    if len(unpacked) > limit:
        raise too_large(limit, code_if_too_large)
    if not unpacker.eof or unpacker.unused_data:
        raise HubError(ErrorCode.GenericBadRequest, "The gzip body is cut short, or something follows it.")
    return unpacked


async def read_body(request: Request, limit: int, code_if_too_large: ErrorCode = ErrorCode.MessageTooLarge) -> bytes:
    """The whole unpacked body. Raises 400000, 415000 and the code for too large."""
    parts: list[bytes] = []
    size = 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > limit:
                raise too_large(limit, code_if_too_large)
            parts.append(part)
    except ClientDisconnect:
        raise HubError(ErrorCode.GenericBadRequest, "The caller hung up before the body was complete.") from None
    return unpack(b"".join(parts), request.headers.get("content-encoding"), limit, code_if_too_large)
