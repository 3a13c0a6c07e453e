"""Token credentials of the official SDKs, unmodified, with tokens of a real issuer: npm's oidc-provider over https."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from methodhub.net.certificates import ensure_authority, ensure_server_certificate
from tests.harness import Program, RunningHub, new_address, node
from tests.interop.peers import NODE_MODULES, PROGRAMS, Device, Language, SdkProgram, node_sdks

ROLES = {"writer": ["IoT Hub Data Contributor"], "reader": ["IoT Hub Data Reader"]}


@dataclass(frozen=True)
class Provider:
    url: str
    ca_file: Path

    def token(self, name: str) -> str:
        with httpx.Client(verify=ssl.create_default_context(cafile=str(self.ca_file))) as asker:
            answer = asker.post(
                self.url + "/token", data={"grant_type": "client_credentials"}, auth=(name, "secret"), timeout=20
            )
        token: str = answer.json()["access_token"]
        return token


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[Provider]:
    address, directory = new_address(), tmp_path / "issuer"
    directory.mkdir()
    now = time.time()
    ensure_server_certificate(directory, ensure_authority(directory, now), [address], "p256", now)
    with socket.socket() as free:
        free.bind((address, 0))
        port = free.getsockname()[1]
    url = f"https://{address}:{port}"
    env = {
        **node_sdks(),
        "ISSUER_URL": url,
        "TLS_CERTIFICATE": str(directory / "server.pem"),
        "TLS_KEY": str(directory / "server-key.pem"),
        "NODE_MODULES": str(NODE_MODULES),
        "CLIENT_ROLES": json.dumps(ROLES),
    }
    with Program([node(), "--no-warnings", str(PROGRAMS / "issuer.mjs")], env) as program:
        program.expect("ready")
        yield Provider(url, directory / "ca.pem")


@pytest.fixture
def hub(tmp_path: Path, provider: Provider) -> Iterator[RunningHub]:
    with RunningHub(tmp_path / "hub", bearer_issuer=provider.url, bearer_ca=provider.ca_file) as hub:
        yield hub


def results(hub: RunningHub, language: Language, token: str, count: int) -> dict[str, Any]:
    env = {
        "IOTHUB_HOST": hub.address,
        "BEARER_TOKEN": token,
        "REQUESTS_CA_BUNDLE": str(hub.ca_file),
        "NODE_EXTRA_CA_CERTS": str(hub.ca_file),
    }
    found = {}
    with SdkProgram(language, PROGRAMS / "bearer", env) as program:
        for _ in range(count):
            line = json.loads(program.expect("result ").split("result ", 1)[1])
            found[line.pop("name")] = line.get("ok", line.get("status"))
    return found


@pytest.mark.parametrize("language", ["python", "node"])
def test_token_credentials_call_a_method_and_read_a_device(
    hub: RunningHub, provider: Provider, language: Language
) -> None:
    """[HUB-bearer-amqp] Node's `open()` shows its token over AMQP, as a SAS token by its type."""
    more = {"open": "opened"} if language == "node" else {}
    with Device(hub, "python", "d1") as device:
        device.is_ready()
        written = {"python": "d2", "node": "d3"}[language]
        assert results(hub, language, provider.token("writer"), 5 + len(more)) == {
            "invoke": 7,
            "read": "d1",
            "twin": "d1",
            "write": written,
            "job": 404,
            **more,
        }
        assert results(hub, language, provider.token("reader"), 5 + len(more)) == {
            "invoke": 401,
            "read": "d1",
            "twin": "d1",
            "write": 401,
            "job": 404,
            **more,
        }
