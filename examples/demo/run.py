"""`make run`: a hub, a device that answers, and the lines to copy to call it. Ctrl-C ends all of it."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parent.parent.parent
DATA = Path(os.environ.get("DEMO_DATA", ROOT / ".run" / "data"))
METHODHUB = Path(sys.executable).parent / "methodhub"
DEVICE = "demo-device"


def ask(*arguments: str) -> str:
    """What `methodhub` prints, without its hints; of a verb that fails, why."""
    command = [METHODHUB, *arguments, "--data-dir", DATA]
    done = subprocess.run(command, check=False, text=True, capture_output=True)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout.strip()


def device_exists() -> bool:
    command = [METHODHUB, "device", "show", DEVICE, "--data-dir", DATA]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def start(command: list[str | Path], until: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Start a program and pass its output on until the line that contains `until`."""
    program = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, env={**os.environ, **(env or {})})
    assert program.stdout is not None
    for line in program.stdout:
        print(line, end="", flush=True)
        if until in line:
            return program
    sys.exit(program.wait() or 1)


def hub_url() -> str:
    """Where back ends reach the hub, port included where it is not 443."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(DATA / "methodhub.sock"))) as client:
        facts = client.get("http://localhost/admin/hub").json()
    port = "" if facts["httpsPort"] == 443 else f":{facts['httpsPort']}"
    return f"https://{facts['hostnames'][0]}{port}"


def instructions() -> str:
    device = ask("connection-string", "--device", DEVICE)
    service = ask("connection-string", "--policy", "service")
    url = hub_url()
    command = shlex.join([str(METHODHUB)])
    data, ca = shlex.quote(str(DATA)), shlex.quote(str(DATA / "ca.pem"))
    return f"""
Device connection string:   {device}
Service connection string:  {service}
CA certificate:             {DATA / "ca.pem"}

Make the SDKs trust it:
  export REQUESTS_CA_BUNDLE={ca}      # Python service SDK, az
  export NODE_EXTRA_CA_CERTS={ca}     # Node SDKs
  # Python device SDK: create_from_connection_string(..., server_verification_cert=open(CA certificate).read())

Call the device, from another terminal:
  {command} invoke {DEVICE} reboot --payload '{{"delay": 5}}' --data-dir {data}

  curl --cacert {ca} '{url}/twins/{DEVICE}/methods?api-version=2021-04-12' \\
    -H "Authorization: $({command} sas-token --policy service --data-dir {data})" \\
    -H 'Content-Type: application/json' -d '{{"methodName": "reboot", "payload": {{"delay": 5}}}}'

Ctrl-C ends the hub and the device.
"""


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    hub = start([METHODHUB, "serve", "--data-dir", DATA], until="MethodHub is ready")
    device = None
    try:
        if not device_exists():
            ask("device", "create", DEVICE)
        device = start(
            [sys.executable, "-W", "ignore", ROOT / "examples" / "demo" / "device.py"],
            until="connected and listening",
            env={
                "IOTHUB_DEVICE_CONNECTION_STRING": ask("connection-string", "--device", DEVICE),
                "IOTHUB_CA_FILE": str(DATA / "ca.pem"),
            },
        )
        print(instructions(), flush=True)
        assert device.stdout is not None
        for line in device.stdout:
            print(line, end="", flush=True)
        return device.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        for program in (device, hub):
            if program is not None and program.poll() is None:
                program.send_signal(signal.SIGTERM)
                program.wait()


if __name__ == "__main__":
    sys.exit(main())
