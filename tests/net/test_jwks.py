"""Fetching keys: over https, from the host that was named, within bounds. Issuers here are servers on loopback."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from methodhub.core.bearer.issuers import Issuer
from methodhub.core.bearer.keys import KeysUnavailable
from methodhub.net import jwks
from methodhub.net.jwks import MAX_DOCUMENT, KeyFetcher
from tests.hub_limits.issuer import HttpsServer, redirect

DISCOVERY = "/tenant/.well-known/openid-configuration"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HttpsServer]:
    with HttpsServer(tmp_path / "issuer", documents={"/keys": b"the keys"}) as server:
        yield server


def document(server: HttpsServer, path: str, ca: bool = True) -> bytes:
    return asyncio.run(KeyFetcher(server.ca_file if ca else None).document(server.url + path))


def refusal(server: HttpsServer, path: str, **more: Any) -> str:
    with pytest.raises(KeysUnavailable) as refused:
        document(server, path, **more)
    return str(refused.value)


def test_keys_at_an_address_and_by_discovery(server: HttpsServer) -> None:
    fetcher = KeyFetcher(server.ca_file)
    known = Issuer("https://elsewhere.test", jwks_url=server.url + "/keys")
    assert asyncio.run(fetcher.fetch(known)) == b"the keys"
    issuer = server.url + "/tenant"
    server.documents[DISCOVERY] = f'{{"issuer":"{issuer}","jwks_uri":"{server.url}/keys","more":1}}'.encode()
    assert asyncio.run(fetcher.fetch(Issuer(issuer))) == b"the keys"
    assert server.asked == ["/keys", DISCOVERY, "/keys"]


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (b'{"issuer":"https://elsewhere.test","jwks_uri":"https://elsewhere.test/keys"}', "of another issuer"),
        (b"nonsense", "no discovery document"),
        (b'{"issuer":"ISSUER"}', "no discovery document"),
        (b'{"issuer":"ISSUER","jwks_uri":"http://127.0.0.1/keys"}', "no https address"),
        (b'{"issuer":"ISSUER","jwks_uri":"file:///etc/passwd"}', "no https address"),
    ],
)
def test_a_discovery_document_that_is_not_followed(server: HttpsServer, found: bytes, why: str) -> None:
    """[HUB-jwks-https]"""
    issuer = server.url + "/tenant"
    server.documents[DISCOVERY] = found.replace(b"ISSUER", issuer.encode())
    with pytest.raises(KeysUnavailable, match=why):
        asyncio.run(KeyFetcher(server.ca_file).fetch(Issuer(issuer)))
    assert server.asked == [DISCOVERY]


def test_a_server_that_nobody_vouches_for(server: HttpsServer) -> None:
    """[HUB-jwks-https]"""
    assert "CERTIFICATE_VERIFY_FAILED" in refusal(server, "/keys", ca=False)
    assert server.asked == []


def test_only_https() -> None:
    """[HUB-jwks-https]"""
    with pytest.raises(KeysUnavailable, match="no https address"):
        asyncio.run(KeyFetcher().document("http://127.0.0.1:1/keys"))


def test_a_redirect_to_another_path_is_followed_to_another_host_is_not(server: HttpsServer, tmp_path: Path) -> None:
    """[HUB-jwks-redirect] Another port is another host; so is http."""
    with HttpsServer(tmp_path / "other", documents={"/keys": b"false keys"}) as other:
        server.documents |= {
            "/near": redirect("/keys"),
            "/whole": redirect(server.url + "/keys"),
            "/other": redirect(other.url + "/keys"),
            "/other-name": redirect(server.url.replace("127.0.0.1", "localhost") + "/keys"),
            "/plain": redirect(server.url.replace("https", "http") + "/keys"),
            "/round": redirect("/round"),
        }
        assert document(server, "/near") == document(server, "/whole") == b"the keys"
        for path in ("/other", "/other-name"):
            assert "redirects to another host" in refusal(server, path)
        assert "no https address" in refusal(server, "/plain")
        assert "redirects more than 3 times" in refusal(server, "/round")
        assert other.asked == []


def test_bounds_of_size(server: HttpsServer) -> None:
    """[HUB-jwks-bounds] Also without a length, and without an end."""

    def endless(request: Any) -> None:
        request.send_response(200)
        request.end_headers()
        try:
            while True:
                request.wfile.write(b"x" * 65_536)
        except OSError:
            request.close_connection = True

    def packed(request: Any) -> None:
        request.send_response(200)
        request.send_header("content-encoding", "gzip")
        request.send_header("content-length", "0")
        request.end_headers()

    server.documents |= {"/full": b"x" * MAX_DOCUMENT, "/huge": b"x" * (MAX_DOCUMENT + 1)}
    server.documents |= {"/endless": endless, "/packed": packed}
    assert len(document(server, "/full")) == MAX_DOCUMENT
    assert "larger than" in refusal(server, "/huge")
    assert "larger than" in refusal(server, "/endless")
    assert "packed" in refusal(server, "/packed")
    assert "answers 404" in refusal(server, "/none")


def test_bounds_of_time(server: HttpsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """[HUB-jwks-bounds]"""
    over = threading.Event()
    server.documents["/slow"] = lambda _request: over.wait(20)
    monkeypatch.setattr(jwks, "FETCH_SECONDS", 0.2)
    try:
        assert "did not answer within" in refusal(server, "/slow")
    finally:
        over.set()


def test_a_server_that_is_not_there(server: HttpsServer) -> None:
    with pytest.raises(KeysUnavailable, match="cannot be read"):
        asyncio.run(KeyFetcher(server.ca_file).document("https://127.0.0.1:1/keys"))
