"""Plays what a back end sends, and lets its client's rule judge what comes back.

A section `call` is the request of a method call, `call with timeouts` the same where the client sends timeouts only if
asked, each with the payload that the device gets for it (`!`). `rows` says what the client makes of each row of the
failure table, which the player brings about. Any other section is played line by line:

    > the request, a line each; `Content-Length: *` is counted; the first line of another mark sends it
    < 200 OK                  the status line         < etag: {etag}     a header; a new variable takes its value
    < body {"status":"*"}     the body holds at least this; "*" is anything
    = ok                      what the client's rule makes of the response
"""

from __future__ import annotations

import base64
import hmac
import json
import re
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from methodhub.iothub.sas import build_token
from tests.harness import API_VERSION, PATIENCE, RunningHub
from tests.transcripts.client_rules import RULES
from tests.transcripts.connection import HTTPS_PORT, MQTT_PORT, Callers, Connection, Response, read_response
from tests.transcripts.dialogues import VARIABLE, Dialogue, Line, Played, fill
from tests.transcripts.mqtt_encoder import encode_line, topic_of

OTHERS = ("other-1", "other-2")
LONGEST = 301.0
"""Seconds: past every timeout that a caller may ask for."""


@dataclass(frozen=True, slots=True)
class Call:
    """A method call as a client writes it, and the payload that the device gets for it."""

    request: list[str]
    payload: str


def read_calls(dialogues: list[Dialogue]) -> dict[str, Call]:
    """The sections `call` and `call with timeouts` of one file."""
    return {
        dialogue.title.partition(":")[0]: Call(
            [line.text for line in dialogue.lines if line.mark == ">"],
            "".join(line.text for line in dialogue.lines if line.mark == "!"),
        )
        for dialogue in dialogues
        if dialogue.title.startswith("call")
    }


class Device:
    """The least that takes a call: connected over MQTT and subscribed."""

    def __init__(self, hub: RunningHub, device_id: str) -> None:
        """Of an identity that exists."""
        with hub.admin() as client:
            found = client.get(f"/devices/{quote(device_id, safe='')}").json()
        key = found["authentication"]["symmetricKey"]["primaryKey"]
        resource = f"{hub.address}/devices/{quote(device_id, safe='')}"
        token = build_token(resource, key, int(hub.hub.clock.wall()) + 3600)
        values = {"host": hub.address, "device": device_id, "token": token}
        self._connection = Connection(hub, MQTT_PORT)
        self._talk(
            "CONNECT client_id={device} keep_alive=0 clean=1 user_name={host}/{device}/?api-version=2021-04-12 "
            "password={token}",
            values,
        )
        self._talk("SUBSCRIBE id=1 $iothub/methods/POST/#:0", values)

    def _talk(self, line: str, values: dict[str, str]) -> None:
        self._connection.send(encode_line(line, lambda text: fill(text, values.__getitem__)))
        answer = self._connection.read_packet()
        assert answer[-1] == 0, answer

    def take(self) -> tuple[str, str]:
        """Wait for a call: its rid and its payload."""
        data = self._connection.read_packet()
        topic = topic_of(data)
        return topic.rpartition("=")[2], data.partition(topic.encode())[2].decode()

    def answer(self, rid: str, status: int, payload: str) -> None:
        line = f"PUBLISH qos=0 $iothub/methods/res/{status}/?$rid={rid} | {payload}"
        self._connection.send(encode_line(line, str))

    def close(self) -> None:
        self._connection.close()


class ServicePlayer:
    def __init__(self, hub: RunningHub, dialogue: Dialogue) -> None:
        self._hub = hub
        self._dialogue = dialogue
        self._settings = dialogue.settings
        self._bound = {"path": self._settings["device_path"]}
        self._callers = Callers(hub)
        self._devices: list[Device] = []

    def __enter__(self) -> ServicePlayer:
        return self

    def __exit__(self, *_: object) -> None:
        for device in self._devices:
            device.close()
        with self._hub.admin() as client:
            for name in (self._settings["device"], *OTHERS):
                client.delete(f"/devices/{quote(name, safe='')}")
        self._callers.close()

    # --- a dialogue line by line ---------------------------------------------------------------------------------

    def play(self) -> None:
        connection = Connection(self._hub, HTTPS_PORT)
        request: list[str] = []
        response: Response | None = None
        for line in self._dialogue.lines:
            try:
                if line.mark == ">":
                    request.append(line.text)
                    continue
                if request:
                    connection.send(self._request(request))
                    response, request = read_response(connection), []
                assert response is not None, "nothing was sent"
                self._check(line, response)
            except (AssertionError, ValueError) as problem:
                raise Played(self._dialogue, line, problem) from problem
        connection.close()

    def _request(self, lines: list[str]) -> bytes:
        head, body = lines, ""
        if "" in lines:
            head, body = lines[: lines.index("")], "\n".join(lines[lines.index("") + 1 :])
        body_bytes = self._fill(body).encode()
        text = "\r\n".join(map(self._fill, head)).replace("Content-Length: *", f"Content-Length: {len(body_bytes)}")
        return text.encode() + b"\r\n\r\n" + body_bytes

    def _check(self, line: Line, response: Response) -> None:
        if line.mark == "=":
            made = RULES[self._settings["rule"]](response)
            assert made == line.text, f"the client makes {made!r} of {response}"
        elif line.text.startswith("body "):
            wanted = json.loads(self._fill(line.text[5:]))
            assert holds(response.json(), wanted), f"the body is {response.body!r}"
        elif line.text[:3].isdigit():
            assert f"{response.status} {response.reason}" == line.text, response
        else:
            self._check_header(line.text, response)

    def _check_header(self, text: str, response: Response) -> None:
        name, _, wanted = text.partition(": ")
        found = response.headers.get(name, "")
        variable = VARIABLE.search(wanted)
        if variable and variable[1] not in self._bound:
            pattern = re.escape(wanted).replace(re.escape(variable[0]), "(.+)")
            match = re.fullmatch(pattern, found)
            assert match, response
            self._bound[variable[1]] = match[1]
        assert found == self._fill(wanted), response

    # --- variables -----------------------------------------------------------------------------------------------

    def _fill(self, text: str) -> str:
        return fill(text, self._value)

    def _value(self, name: str) -> str:
        if name in self._bound:
            return self._bound[name]
        if name == "token":
            return self._token()
        return self._hub.address if name == "host" else self._settings[name]

    def _token(self, key: str = "") -> str:
        policy = self._hub.hub.policies.get("iothubowner")
        assert policy is not None
        sr, se = self._fill(self._settings["sr"]), str(int(self._hub.hub.clock.wall()) + 3600)
        digest = hmac.digest(base64.b64decode(key or policy.primary_key), f"{sr}\n{se}".encode(), "sha256")
        sig = quote(base64.b64encode(digest).decode(), safe=self._settings.get("unescaped", ""))
        return fill(self._settings["token"], {"sr": sr, "sig": sig, "se": se}.__getitem__)

    # --- the rows of the failure table ---------------------------------------------------------------------------

    def play_row(self, row: str, expected: Line, calls: dict[str, Call]) -> None:
        """Bring the row about and compare what the client makes of it."""
        timeouts = row == "400004" and "call with timeouts" in calls
        call = calls["call with timeouts" if timeouts else "call"]
        response = getattr(self, f"_row_{row.replace('-', '_')}")(call)
        if len(row) == 6:
            response.check_error(int(row))
        made = RULES[self._settings["rule"]](response)
        wanted = expected.text.split(None, 1)[1]
        if made != wanted:
            raise Played(self._dialogue, expected, f"the client makes {made!r} of {response}")

    def _call(self, call: Call, **values: str) -> Future[Response]:
        self._bound.update(values)
        return self._callers.start(self._request(call.request))

    def _create(self, device_id: str = "") -> None:
        device_id = device_id or self._settings["device"]
        with self._hub.admin() as client:
            client.put(f"/devices/{quote(device_id, safe='')}", json={"deviceId": device_id}).raise_for_status()

    def _connect(self, device_id: str = "") -> Device:
        device = Device(self._hub, device_id or self._settings["device"])
        self._devices.append(device)
        return device

    def _delivered(self, call: Call) -> tuple[Future[Response], Device, str]:
        """A call that a device has and has not answered. Its payload came through to the byte."""
        self._create()
        device = self._connect()
        response = self._call(call)
        rid, payload = device.take()
        assert payload == call.payload, f"the device got {payload!r}, not {call.payload!r}"
        return response, device, rid

    def _fill_up(self, device_id: str) -> None:
        """An open call to this device, of somebody else."""
        body = json.dumps({"methodName": "keeps", "responseTimeoutInSeconds": 300})
        request = (
            f"POST /twins/{quote(device_id, safe='')}/methods?api-version={API_VERSION} HTTP/1.1\r\n"
            f"Host: {self._hub.address}\r\nAuthorization: {self._hub.token()}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        )
        device = self._connect(device_id)
        self._callers.start(request.encode())
        device.take()

    def _row_200(self, call: Call) -> Response:
        response, device, rid = self._delivered(call)
        device.answer(rid, 200, '{"ok":true}')
        return response.result(PATIENCE)

    def _row_200_empty(self, call: Call) -> Response:
        response, device, rid = self._delivered(call)
        device.answer(rid, 501, "")
        return response.result(PATIENCE)

    def _row_400004(self, call: Call) -> Response:
        self._create()
        return self._call(call, response="301").result(PATIENCE)

    def _row_400027(self, call: Call) -> Response:
        response, _, _ = self._delivered(call)
        self._connect()
        return response.result(PATIENCE)

    def _row_401002(self, call: Call) -> Response:
        self._create()
        return self._call(call, token=self._token(base64.b64encode(bytes(32)).decode())).result(PATIENCE)

    def _row_403800(self, call: Call) -> Response:
        self._create()
        self._fill_up(self._settings["device"])
        return self._call(call).result(PATIENCE)

    def _row_404001(self, call: Call) -> Response:
        return self._call(call).result(PATIENCE)

    def _row_404010(self, call: Call) -> Response:
        self._create()
        return self._call(call, path=self._settings["module_path"]).result(PATIENCE)

    def _row_404103(self, call: Call) -> Response:
        self._create()
        response = self._call(call)
        waiting = self._hub.hub.methods.open
        self._hub.until(lambda: response.done() or any(each._stop_waiting for each in waiting))
        self._hub.advance(LONGEST)
        return response.result(PATIENCE)

    def _row_404104(self, call: Call) -> Response:
        response, device, _ = self._delivered(call)
        device.close()
        return response.result(PATIENCE)

    def _row_429001(self, call: Call) -> Response:
        self._create()
        for name in OTHERS:
            self._create(name)
            self._fill_up(name)
        return self._call(call).result(PATIENCE)

    def _row_502000(self, call: Call) -> Response:
        response, device, rid = self._delivered(call)
        device.answer(rid, 200, "{'single': 'quotes'}")
        return response.result(PATIENCE)

    def _row_503001(self, call: Call) -> Response:
        """On a hub that stops."""
        self._create()
        return self._call(call).result(PATIENCE)

    def _row_504101(self, call: Call) -> Response:
        response, _, _ = self._delivered(call)
        self._hub.advance(LONGEST)
        return response.result(PATIENCE)


def holds(found: Any, wanted: Any) -> bool:
    """Whether a JSON value holds at least what is wanted; the text * is anything."""
    if wanted == "*":
        return True
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(key in found and holds(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        return isinstance(found, list) and len(found) == len(wanted) and all(map(holds, found, wanted))
    return bool(found == wanted)


ROWS = {name.removeprefix("_row_").replace("_", "-") for name in vars(ServicePlayer) if name.startswith("_row_")}
