"""The page on clusters, as far as it goes without root: its certificates, its NATS servers with TLS, its statements for
PostgreSQL, nodes between them; and that its balancer's configuration is one."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness import PATIENCE, Program, new_address
from tests.postgres import PostgresServer
from tests.verify.hub_process import HubProcess

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "cluster.md").read_text(encoding="utf-8")
DEPLOY = ROOT / "deploy"
HOSTS = ("10.0.0.11", "10.0.0.12", "10.0.0.13", "10.0.0.31")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def block(heading: str, language: str, number: int = 0) -> str:
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)
    return blocks[number]


def here(text: str, addresses: dict[str, str]) -> str:
    for host, address in addresses.items():
        text = re.sub(rf"{re.escape(host)}\b", address, text)
    return text


def start_nats(stack: ExitStack, place: Path, host: str, addresses: dict[str, str], number: int) -> Program:
    text = (DEPLOY / "nats.conf").read_text()
    text = text.replace("/etc/nats/server", str(place / host)).replace(
        "/etc/nats/ca.pem", str(place / "internal-ca.pem")
    )
    text = text.replace("server_name: nats1 ", f"server_name: nats{number} ").replace("0.0.0.0", host)
    config = place / f"nats{number}.conf"
    config.write_text(here(text, addresses))
    for kind in (".pem", "-key.pem"):
        shutil.copy(place / f"{addresses[host]}{kind}", place / f"{host}{kind}")
    server = Path(sys.executable).with_name("nats-server")
    return stack.enter_context(Program([str(server), "-c", str(config)], {"METHODHUB_NATS_PASSWORD": "NATSPASSWORD"}))


def start_postgresql(stack: ExitStack, address: str) -> None:
    """The package's server was built without TLS: its part of the page is tried by hand, with Debian's."""
    place = Path(tempfile.mkdtemp(prefix="pg-"))
    stack.callback(shutil.rmtree, place)
    server = PostgresServer(place, {"listen_addresses": address})
    line = re.findall(r'echo "(host.*)" >>', block("2. PostgreSQL", "sh"))[0]
    with (place / "data" / "pg_hba.conf").open("a") as file:
        file.write(line.replace("hostssl", "host").replace("10.0.0.0/24", "127.0.0.0/8") + "\n")
    server.start()
    stack.callback(server.stop)
    for statement in re.findall(r'psql -c "(.*)"', block("2. PostgreSQL", "sh")):
        server.sql(statement)


def test_what_the_page_says_makes_nodes(stack: ExitStack, tmp_path: Path) -> None:
    """Certificates of its commands; `deploy/nats.conf` three times; a node with the URLs of its secrets.env."""
    addresses = {host: new_address() for host in HOSTS}
    script = here(block("1. Certificates between the machines", "sh"), addresses)
    subprocess.run(["sh", "-ec", script], cwd=tmp_path, check=True, capture_output=True)
    servers = [start_nats(stack, tmp_path, host, addresses, number) for number, host in enumerate(HOSTS[:3], 1)]
    for server in servers:
        server.expect("Route connection created")
    start_postgresql(stack, addresses[HOSTS[3]])
    secrets = here(block("4. Nodes", "sh", 1), addresses).replace(
        "/etc/methodhub/internal-ca.pem", str(tmp_path / "internal-ca.pem")
    )
    env = dict(re.findall(r"(METHODHUB_\w+)='(.*)'", secrets))
    assert set(env) == {"METHODHUB_DATABASE_URL", "METHODHUB_NATS_URL"}
    env["METHODHUB_DATABASE_URL"] = env["METHODHUB_DATABASE_URL"].partition("?")[0]
    env["METHODHUB_NATS_CA"] = str(tmp_path / "internal-ca.pem")
    nodes = [stack.enter_context(HubProcess(tmp_path / f"node{number}", env=env)) for number in (1, 2)]
    nodes[0].create("d1")
    with nodes[1].admin() as client:
        assert client.get("/devices/d1").status_code == 200
    for server in servers:
        server.process.terminate()
        server.wait(PATIENCE)


def test_the_balancers_configuration_is_one() -> None:
    haproxy = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if haproxy is None:
        pytest.skip("HAProxy is not installed here")
    done = subprocess.run([haproxy, "-c", "-f", DEPLOY / "haproxy.cfg"], capture_output=True, text=True, check=False)
    assert "Configuration file is valid" in done.stdout + done.stderr
