"""Devices that show a certificate, byte by byte over MQTT."""

from __future__ import annotations

import socket
import ssl
import tempfile
from pathlib import Path
from typing import Any

from tests.certificates import Issued
from tests.harness import PATIENCE, RunningHub
from tests.hub.peers import NO_CHECK_TIME, Device, connect_packet


def context_with(hub: RunningHub, issued: Issued | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(hub.ca_file))
    context.verify_flags |= NO_CHECK_TIME
    if issued is not None:
        with tempfile.TemporaryDirectory() as directory:
            context.load_cert_chain(*issued.files(Path(directory)))
    return context


class CertifiedDevice(Device):
    """A device, or with `device/module` a module, that shows a certificate or none, and a password or none."""

    def __init__(self, hub: RunningHub, name: str, issued: Issued | None, password: str | None = None) -> None:
        assert hub.facts.mqtt_port
        self.hub = hub
        raw = socket.create_connection((hub.address, hub.facts.mqtt_port), PATIENCE)
        self.socket = context_with(hub, issued).wrap_socket(raw, server_hostname=hub.address)
        self.socket.settimeout(PATIENCE)
        self._buffer = b""
        self._packet_id = 0
        self.client_id = name
        self.user_name = f"{hub.address}/{name}/?api-version=2021-04-12"
        self.password = password

    def hello(self, clean: bool = True, keep_alive: int = 0) -> bytes:
        return connect_packet(self.client_id, self.user_name, self.password, clean, keep_alive)


def put(hub: RunningHub, name: str, authentication: dict[str, Any], **fields: Any) -> None:
    """Create an identity, or change it if it is there."""
    device, _, module = name.partition("/")
    path = f"/devices/{device}" + (f"/modules/{module}" if module else "")
    body = {"deviceId": device, "authentication": authentication, **fields} | ({"moduleId": module} if module else {})
    with hub.admin() as admin:
        exists = admin.get(path).status_code == 200
        admin.put(path, json=body, headers={"If-Match": "*"} if exists else {}).raise_for_status()


def pin(*issued: Issued | None, digest: str = "sha256") -> dict[str, Any]:
    """A primary and a secondary thumbprint."""
    names = ("primaryThumbprint", "secondaryThumbprint")
    pins = {name: getattr(each, digest) for name, each in zip(names, issued, strict=False) if each is not None}
    return {"type": "selfSigned", "x509Thumbprint": pins}


SIGNED = {"type": "certificateAuthority"}
SAS = {"type": "sas"}


def add_authority(hub: RunningHub, name: str, issued: Issued, verified: bool = True) -> dict[str, Any]:
    with hub.admin() as admin:
        answer = admin.put(f"/admin/ca-certificates/{name}", json={"certificate": issued.pem, "verified": verified})
    answer.raise_for_status()
    document: dict[str, Any] = answer.json()
    return document


def remove_authority(hub: RunningHub, name: str) -> None:
    with hub.admin() as admin:
        admin.delete(f"/admin/ca-certificates/{name}").raise_for_status()
