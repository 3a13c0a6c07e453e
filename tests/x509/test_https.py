"""HTTPS asks for a client certificate while one is of use, serves who has none, and resumes no session."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from methodhub.core.identity import Authentication, AuthenticationType, Identity, Target
from tests.certificates import Issued, authority, self_signed
from tests.harness import PATIENCE, Program, RunningHub, node
from tests.x509.peers import SAS, SIGNED, add_authority, pin, put, remove_authority

OWN = self_signed("own")


def curl(hub: RunningHub, *options: str) -> subprocess.CompletedProcess[str]:
    url = f"https://{hub.address}/health/live"
    command = ["curl", "-sS", "--cacert", str(hub.ca_file), *options, url]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)


def is_asked(hub: RunningHub) -> bool:
    """Whether a browser would prompt."""
    shown = curl(hub, "-v", "--tls-max", "1.2")
    assert shown.stdout == '{"status":"live"}'
    return "Request CERT" in shown.stderr


@pytest.fixture
def auto(tmp_path: Path) -> Iterator[RunningHub]:
    with RunningHub(tmp_path / "hub", in_memory=False) as running:
        yield running


def test_it_asks_while_an_identity_or_a_ca_needs_it(auto: RunningHub) -> None:
    """[HUB-certificate-request]"""
    tls = auto.hub.certificates.tls
    assert not is_asked(auto)
    put(auto, "d", SAS)
    assert not is_asked(auto)
    put(auto, "d", pin(OWN))
    assert is_asked(auto)
    add_authority(auto, "factory", ca := authority())
    put(auto, "d", SAS)
    assert is_asked(auto)
    remove_authority(auto, "factory")
    auto.until(lambda: not tls.https.asks_for_certificates)
    assert not is_asked(auto)
    put(auto, "d/m", SIGNED)
    assert is_asked(auto)
    with auto.admin() as admin:
        admin.delete("/devices/d").raise_for_status()
    auto.until(lambda: not tls.https.asks_for_certificates)
    assert not is_asked(auto)
    add_authority(auto, "factory", ca, verified=False)
    assert is_asked(auto)


def test_what_another_node_told_of_in_vain_is_found(auto: RunningHub) -> None:
    """[HUB-one-truth] By a comparison with the store."""
    identity = Identity(Target("d"), "e", "1", Authentication(AuthenticationType.SELF_SIGNED))
    auto.run(auto.hub.identity_store.insert(identity))
    assert not is_asked(auto)
    auto.run(auto.hub.certificates.recheck())
    assert is_asked(auto)


def test_a_start_finds_what_there_is(tmp_path: Path) -> None:
    """[HUB-certificate-request]"""
    for what in ("identity", "ca"):
        directory = tmp_path / what
        with RunningHub(directory, in_memory=False) as hub:
            if what == "identity":
                put(hub, "d", SIGNED)
            else:
                add_authority(hub, "factory", authority())
        with RunningHub(directory, in_memory=False) as hub:
            assert is_asked(hub)


@pytest.mark.parametrize("setting", ["on", "off"])
def test_it_is_a_setting(tmp_path: Path, setting: str) -> None:
    """[HUB-certificate-request]"""
    with RunningHub(tmp_path, https_client_certificates=setting) as hub:
        assert is_asked(hub) is (setting == "on")
        put(hub, "d", pin(OWN))
        assert is_asked(hub) is (setting == "on")
        with hub.admin() as admin:
            admin.delete("/devices/d").raise_for_status()
        assert is_asked(hub) is (setting == "on")


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_curl_connects_twice(tmp_path: Path, version: str) -> None:
    """With resumption, as it does by itself: without the hub's care its second handshake fails."""
    with RunningHub(tmp_path / "hub", https_client_certificates="on") as hub:
        certificate, key = OWN.files(tmp_path)
        for options in ([], ["--cert", certificate, "--key", key]):
            shown = curl(
                hub,
                *("-v", "--tlsv" + version, "--tls-max", version, "-H", "Connection: close", *options),
                f"https://{hub.address}/health/ready",
            )
            assert shown.stdout == '{"status":"ready"}{"status":"live"}'
            assert shown.stderr.count("SSL connection using") == 2


TWICE = """
const tls = require('tls'), fs = require('fs');
const [host, port, version, ca, cert, key, hello] = process.argv.slice(1);
const connect = (session, after) => {
  let found = session;
  const socket = tls.connect({ host, port, session, minVersion: version, maxVersion: version,
    ca: fs.readFileSync(ca), cert: fs.readFileSync(cert), key: fs.readFileSync(key) });
  socket.on('session', (fresh) => { found = fresh; });
  socket.on('secureConnect', () => { found = found || socket.getSession(); socket.write(Buffer.from(hello, 'hex')); });
  socket.on('data', (data) => {
    console.log('answer', data.toString('hex'), socket.isSessionReused());
    socket.on('close', () => after(found));
    socket.destroy();
  });
  socket.on('error', (error) => { console.log('failed', error.message); process.exit(1); });
};
connect(undefined, (session) => { console.log('session', !!session); connect(session, () => process.exit(0)); });
"""


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_node_connects_twice_with_its_session(auto: RunningHub, tmp_path: Path, version: str) -> None:
    """It offers the first session to the second handshake; the certificate is asked for anew, and is there."""
    put(auto, "own", pin(OWN))
    certificate, key = OWN.files(tmp_path)
    hello = hello_of(auto, OWN)
    port = str(auto.facts.mqtt_port)
    arguments = [auto.address, port, version, str(auto.ca_file), certificate, key, hello.hex()]
    with Program([node(), "-e", TWICE, *arguments]) as program:
        assert program.expect("answer") == "answer 20020000 false"
        program.expect("session true")
        assert program.expect("answer") == "answer 20020000 false"
        assert program.wait() == 0


def hello_of(hub: RunningHub, issued: Issued) -> bytes:
    from tests.hub.peers import connect_packet  # noqa: PLC0415

    return connect_packet("own", f"{hub.address}/own/?api-version=2021-04-12", None, clean=True)
