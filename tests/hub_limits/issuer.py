"""An issuer of bearer tokens in a test's hands: its keys, its tokens, and its documents over https."""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from joserfc import jws
from joserfc.jwk import ECKey, OctKey, RSAKey

from methodhub.net.certificates import ensure_authority, ensure_server_certificate

ISSUER = "https://issuer.test/tenant"
AUDIENCE = "https://iothubs.azure.net"

Key = RSAKey | ECKey | OctKey


def rsa_key(key_id: str = "k1") -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": key_id, "use": "sig"})


def ec_key(key_id: str = "k1", curve: str = "P-256") -> ECKey:
    return ECKey.generate_key(curve, {"kid": key_id})


def jwks(*keys: Key | dict[str, Any]) -> bytes:
    entries = [key if isinstance(key, dict) else key.as_dict(private=False) for key in keys]
    return json.dumps({"keys": entries}).encode()


def claims(now: float, **changes: Any) -> dict[str, Any]:
    """Those of a token that holds; None takes one away."""
    said = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "app-1",
        "iat": int(now),
        "exp": int(now) + 3600,
        "roles": ["IoT Hub Data Contributor"],
        **changes,
    }
    return {name: value for name, value in said.items() if value is not None}


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def sign(key: Key, said: dict[str, Any], algorithm: str = "RS256", **header: Any) -> str:
    """A signed token; `header` says more than the algorithm and the key's id."""
    head = {"alg": algorithm, "kid": key.kid, "typ": "JWT", **header}
    registry = jws.JWSRegistry(algorithms=[algorithm], strict_check_header=False)
    registry.max_header_length = 100_000
    return jws.serialize_compact(
        {name: value for name, value in head.items() if value is not None}, json.dumps(said), key, registry=registry
    )


def bearer(token: str) -> bytes:
    return b"Bearer " + token.encode()


class HttpsServer:
    """Documents by path over TLS with a certificate of a CA of its own. A document is bytes, or a function that
    answers by itself."""

    def __init__(self, directory: Path, address: str = "127.0.0.1", documents: dict[str, Any] | None = None) -> None:
        directory.mkdir(exist_ok=True)
        now = time.time()
        ensure_server_certificate(directory, ensure_authority(directory, now), [address], "p256", now)
        self.ca_file = directory / "ca.pem"
        self.documents: dict[str, Any] = documents or {}
        self.asked: list[str] = []
        documents_by_path, asked = self.documents, self.asked

        class Answer(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                asked.append(self.path)
                document = documents_by_path.get(self.path)
                if callable(document):
                    document(self)
                    return
                self.send_response(404 if document is None else 200)
                self.send_header("content-length", str(len(document or b"")))
                self.end_headers()
                self.wfile.write(document or b"")

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((address, 0), Answer)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(directory / "server.pem", directory / "server-key.pem")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self.url = f"https://{address}:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def redirect(place: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("location", place)
        request.send_header("content-length", "0")
        request.end_headers()

    return answer
