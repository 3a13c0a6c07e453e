"""Fetching the keys of an OpenID Connect issuer: over https only, from the host that was named, within bounds of size
and time. Knows no token."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import msgspec

from methodhub.core.bearer.issuers import Issuer
from methodhub.core.bearer.keys import KeysUnavailable

if TYPE_CHECKING:
    import httpx

MAX_DOCUMENT = 262_144
FETCH_SECONDS = 5.0
"""For one document, redirects included."""

MAX_REDIRECTS = 3

_REDIRECTS = {301, 302, 303, 307, 308}


class _Discovery(msgspec.Struct):
    issuer: str
    jwks_uri: str


_decode = msgspec.json.Decoder(_Discovery).decode


class KeyFetcher:
    """`ca_file`: PEM with authorities to believe beside the well-known ones."""

    def __init__(self, ca_file: Path | None = None) -> None:
        self._ca_file = ca_file

    async def fetch(self, issuer: Issuer) -> bytes:
        """The JWKS document of the issuer, perhaps after its discovery document. Raises KeysUnavailable."""
        url = issuer.jwks_url
        if url is None:
            place = issuer.url.rstrip("/") + "/.well-known/openid-configuration"
            try:
                found = _decode(await self.document(place))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise KeysUnavailable(f"{place} is no discovery document: {error}") from None
            if found.issuer != issuer.url:
                raise KeysUnavailable(f"{place} is of another issuer, {found.issuer[:500]!r}")
            url = found.jwks_uri
        return await self.document(url)

    async def document(self, url: str) -> bytes:
        """[HUB-jwks-https] [HUB-jwks-bounds] Raises KeysUnavailable."""
        # httpx takes a tenth of a second to load, and only hubs with an issuer need it.
        import httpx  # noqa: PLC0415

        try:
            async with asyncio.timeout(FETCH_SECONDS):
                async with httpx.AsyncClient(verify=self._trust(), timeout=None) as asker:  # noqa: S113 - the line above
                    return await _follow(asker, url)
        except TimeoutError:
            raise KeysUnavailable(f"{url} did not answer within {FETCH_SECONDS:.0f} seconds") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise KeysUnavailable(f"{url} cannot be read: {type(error).__name__} {error}") from None

    def _trust(self) -> Any:
        import httpx  # noqa: PLC0415

        context = httpx.create_ssl_context()
        if self._ca_file is not None:
            context.load_verify_locations(self._ca_file)
        return context


async def _follow(asker: httpx.AsyncClient, url: str) -> bytes:
    """[HUB-jwks-redirect] To another path of the same host, not further."""
    start = urlsplit(url)
    for _ in range(MAX_REDIRECTS + 1):
        here = urlsplit(url)
        if here.scheme != "https" or not here.hostname:
            raise KeysUnavailable(f"{url} is no https address")
        if (here.hostname, here.port) != (start.hostname, start.port):
            raise KeysUnavailable(f"{start.geturl()} redirects to another host, {here.netloc!r}")
        headers = {"accept": "application/json", "accept-encoding": "identity"}
        async with asker.stream("GET", url, headers=headers) as response:
            if response.status_code in _REDIRECTS:
                url = urljoin(url, response.headers.get("location", ""))
                continue
            if response.status_code != 200:
                raise KeysUnavailable(f"{url} answers {response.status_code}")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise KeysUnavailable(f"{url} answers in a packed form that nobody asked for")
            body = b""
            async for part in response.aiter_raw():
                body += part
                if len(body) > MAX_DOCUMENT:
                    raise KeysUnavailable(f"{url} is larger than {MAX_DOCUMENT} bytes")
            return body
    raise KeysUnavailable(f"{start.geturl()} redirects more than {MAX_REDIRECTS} times")
