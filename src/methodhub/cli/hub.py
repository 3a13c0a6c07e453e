"""One way to the hub's HTTP for every verb: the UNIX socket of the running hub, else the data itself.

Knows no verb.
"""

# ruff: noqa: PLC0415 - slow imports stay inside the verbs that need them, so that --help is quick

from __future__ import annotations

import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from methodhub.cli.exit_codes import ExitCode, Failure, refused
from methodhub.cli.options import note
from methodhub.core.errors import ErrorCode
from methodhub.process import on_socket

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

API_VERSION = "2021-04-12"
_ORIGIN = "http://localhost"
_CONNECT_SECONDS = 10
_LOCK_SECONDS = 10
"""How long the data may be held by another command, or by a hub that starts."""
_LOCK_PAUSE = 0.1
PAGE = 500
"""Items of one page."""


def escape(segment: str) -> str:
    """A path segment, encoded whole; dots too where they are all of it, or a client would resolve them."""
    return quote(segment, safe="") if segment.strip(".") else segment.replace(".", "%2E")


class Hub:
    """The hub as a verb sees it. Every method raises Failure where the hub says no."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def exchange(
        self,
        method: str,
        *path: str,
        content: bytes | None = None,
        etag: str | None = None,
        headers: Mapping[str, str] | None = None,
        **query: str,
    ) -> httpx.Response:
        """The answer, whatever it is. `path` holds unescaped segments; `etag` goes into If-Match."""
        import httpx

        sent = dict(headers or {})
        if content is not None:
            sent["Content-Type"] = "application/json; charset=utf-8"
        if etag is not None:
            sent["If-Match"] = f'"{etag}"'
        try:
            return await self._client.request(
                method, _url(path), params={"api-version": API_VERSION, **query}, content=content, headers=sent
            )
        except httpx.ConnectError as error:
            raise Failure(ExitCode.NO_HUB, f"the hub takes no connection: {error}") from None
        except httpx.TransportError as error:
            raise Failure(
                ExitCode.NO_HUB,
                f"the hub ended before it answered ({type(error).__name__}); it may have acted",
            ) from None

    async def send(
        self, method: str, *path: str, content: bytes | None = None, etag: str | None = None, **query: str
    ) -> bytes:
        """The body of an answer that says yes."""
        response = await self.exchange(method, *path, content=content, etag=etag, headers=None, **query)
        if not response.is_success:
            raise failure_of(response)
        return response.content

    async def call(self, method: str, *path: str, body: object = None, etag: str | None = None, **query: str) -> Any:
        """The same with JSON in and out."""
        content = None if body is None else json.dumps(body).encode()
        answer = await self.send(method, *path, content=content, etag=etag, **query)
        return json.loads(answer) if answer else None

    async def pages(
        self, method: str, *path: str, content: bytes | None = None, **query: str
    ) -> AsyncIterator[tuple[str, list[Any]]]:
        """Item type and items of each page, until no continuation comes (`wire/service.md` 4.3, 5)."""
        headers = {"x-ms-max-item-count": str(PAGE)}
        while True:
            response = await self.exchange(method, *path, content=content, etag=None, headers=headers, **query)
            if not response.is_success:
                raise failure_of(response)
            yield response.headers.get("x-ms-item-type", ""), response.json()
            if "x-ms-continuation" not in response.headers:
                return
            headers["x-ms-continuation"] = response.headers["x-ms-continuation"]

    async def events(self, *path: str) -> AsyncIterator[Any]:
        """The data of each server-sent event, until the hub ends them. or itself ends."""
        import httpx

        try:
            async with self._client.stream("GET", _url(path), params={"api-version": API_VERSION}) as response:
                if not response.is_success:
                    await response.aread()
                    raise failure_of(response)
                async for line in response.aiter_lines():
                    if line.startswith("data:"):
                        yield json.loads(line.removeprefix("data:"))
        except httpx.TransportError:
            return


def _url(path: tuple[str, ...]) -> str:
    return f"{_ORIGIN}/{'/'.join(map(escape, path))}"


def failure_of(response: httpx.Response) -> Failure:
    """What an error answer says, in either of the two formats (`wire/service.md` 1.7)."""
    name = response.headers.get("iothub-errorcode", "")
    try:
        message = str(response.json()["Message"])
    except (ValueError, KeyError, TypeError):
        message = response.reason_phrase
    try:
        message = str(json.loads(message)["message"])
    except (ValueError, KeyError, TypeError):
        if message.startswith("ErrorCode:"):
            message = message.partition(";")[2]
    if name not in ErrorCode.__members__:
        return Failure(ExitCode.REFUSED, f"the hub answered {response.status_code}: {message}")
    return refused(ErrorCode[name], message)


def _is_running(socket_path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_CONNECT_SECONDS)
        try:
            probe.connect(str(socket_path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError as error:
            raise Failure(
                ExitCode.NO_HUB,
                f"cannot open {socket_path}: {error.strerror or error}; run this as the user who runs the hub",
            ) from None
    return True


def run(data_dir: Path, work: Callable[[Hub], Awaitable[T]], *, demand_running: bool = False) -> T:
    """Do `work` on the hub of this directory. Without a running hub it works on the data, unless that makes no sense.

    Raises Failure.
    """
    import asyncio

    from methodhub.config import SOCKET_NAME
    from methodhub.process import InUse

    socket_path = data_dir / SOCKET_NAME
    patience = time.monotonic() + _LOCK_SECONDS
    while True:
        if _is_running(socket_path):
            return asyncio.run(_on_socket(socket_path, work))
        if demand_running:
            raise Failure(
                ExitCode.NO_HUB, f"no hub is running on {data_dir}; start one: methodhub serve --data-dir {data_dir}"
            )
        if not data_dir.exists():
            note(f"note: {data_dir} was not there; a hub's data begin in it")
        try:
            return asyncio.run(_on_data(data_dir, work))
        except InUse as error:  # a hub that starts, or another command
            if time.monotonic() > patience:
                raise Failure(ExitCode.NO_HUB, str(error)) from None
        time.sleep(_LOCK_PAUSE)


async def _on_socket(socket_path: Path, work: Callable[[Hub], Awaitable[T]]) -> T:
    import httpx

    # Calls may rightly wait for minutes; the hub ends each of them, so only connecting has a limit here.
    client = httpx.AsyncClient(
        transport=on_socket(socket_path),
        timeout=httpx.Timeout(None, connect=_CONNECT_SECONDS),
        trust_env=False,
    )
    async with client:
        return await work(Hub(client))


async def _on_data(data_dir: Path, work: Callable[[Hub], Awaitable[T]]) -> T:
    import httpx

    from methodhub.process import InUse
    from methodhub.server import StartError, offline_api

    try:
        async with (
            offline_api(data_dir) as app,
            httpx.AsyncClient(transport=httpx.ASGITransport(app), trust_env=False) as client,
        ):
            return await work(Hub(client))
    except InUse:
        raise
    except StartError as error:
        raise Failure(ExitCode.NO_HUB, str(error)) from None
