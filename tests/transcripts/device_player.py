"""Plays a device's dialogue against a hub: its packets, the hub's, and what back ends and time do meanwhile.

! call [response=30] [connect=0] name payload|absent      a back end calls; the call goes on behind the dialogue
! expect 200 body | ! expect 404103                       how the oldest open call ended
! advance 30                                              seconds pass
! live 3480                                               seconds pass, with a ping each keep-alive
! closed [former]                                         the hub has closed, without another word
! desire {"a":1}                                        a back end patches the desired properties
! drop                                                    the network breaks; the hub has seen it
! connect                                                 a new connection; the present one becomes the former
! websocket target subprotocol                            the same, inside a WebSocket
! disable | enable | delete | create                      what an operator does to the device
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from concurrent.futures import Future
from urllib.parse import quote

from methodhub.core.identity import Target
from tests.harness import API_VERSION, PATIENCE, RunningHub
from tests.transcripts.connection import MQTT_PORT, Callers, Connection, Response, WebSocketConnection
from tests.transcripts.dialogues import VARIABLE, Dialogue, Line, Played, fill
from tests.transcripts.mqtt_encoder import encode_line, topic_of

KEYS = {name: base64.b64encode(hashlib.sha256(name.encode()).digest()).decode() for name in ("primary", "secondary")}
WRONG_KEY = base64.b64encode(bytes(32)).decode()
RID = "[1-9a-f][0-9a-f]*"
"""[HUB-rid] lower-case hexadecimal without leading zeros."""


class DevicePlayer:
    def __init__(self, hub: RunningHub, dialogue: Dialogue) -> None:
        self._hub = hub
        self._dialogue = dialogue
        self._settings = dialogue.settings
        self._bound: dict[str, str] = {}
        self._connection: Connection
        self._former: Connection | None = None
        self._calls: list[Future[Response]] = []
        self._callers = Callers(hub)
        self._keep_alive = 0.0

    def play(self) -> None:
        self._do_create()
        self._start()
        try:
            for line in self._dialogue.lines:
                try:
                    self._play_line(line)
                except (AssertionError, TimeoutError, OSError) as problem:
                    raise Played(self._dialogue, line, problem) from problem
            assert not self._calls, "a call is left that no line expects"
        finally:
            self._close()
            self._admin("DELETE")
            self._callers.close()

    def _start(self) -> None:
        self._connection = Connection(self._hub, MQTT_PORT, self._settings.get("tls", ""))

    def _close(self) -> None:
        self._connection.close()
        if self._former is not None:
            self._former.close()

    def _play_line(self, line: Line) -> None:
        if line.mark == ">":
            found = re.search(r"^CONNECT .*\bkeep_alive=(\d+)", line.text)
            self._keep_alive = float(found[1]) if found else self._keep_alive
            self._connection.send(encode_line(line.text, self._fill))
        elif line.mark == "<":
            self._receive(line.text)
        else:
            verb, _, rest = line.text.partition(" ")
            getattr(self, f"_do_{verb}")(*([rest] if rest else []))

    def _receive(self, text: str) -> None:
        """The next packet is this one, to the byte. A variable that is new in a topic takes what stands there."""
        data = self._connection.read_packet()
        if text.startswith("PUBLISH"):
            topic = text.partition(" | ")[0].split()[-1]
            pattern = VARIABLE.sub(self._pattern, re.sub(r"[.$?*+#^|()\[\]]", r"\\\g<0>", topic))
            found = re.fullmatch(pattern, topic_of(data))
            assert found, f"the hub sent {data!r}"
            self._bound.update(found.groupdict())
        expected = encode_line(text, self._fill)
        assert data == expected, f"the hub sent {data!r}, not {expected!r}"

    def _pattern(self, match: re.Match[str]) -> str:
        name = match[1]
        return (
            f"(?P<{name}>{RID})" if name.startswith("rid") and name not in self._bound else re.escape(self._value(name))
        )

    # --- variables -----------------------------------------------------------------------------------------------

    def _fill(self, text: str) -> str:
        return fill(text, self._value)

    def _value(self, name: str) -> str:
        if name.startswith("token"):
            return self._token(name)
        if name in self._bound:
            return self._bound[name]
        return self._hub.address if name == "host" else self._settings[name]

    def _token(self, name: str) -> str:
        """The SDK's spelling: the file gives the text of `sr`, the order of the fields and how `sig` is escaped."""
        policy = self._hub.hub.policies.get("device")
        assert policy is not None
        key = {
            "token_wrong_key": WRONG_KEY,
            "token_secondary": KEYS["secondary"],
            "token_policy": policy.primary_key,
        }.get(name, KEYS["primary"])
        sr = self._fill(
            self._settings["sr_module" if name == "token_module" else "sr_policy" if name == "token_policy" else "sr"]
        )
        se = str(int(self._hub.hub.clock.wall()) + int(self._settings["token_seconds"]))
        digest = hmac.digest(base64.b64decode(key), f"{sr}\n{se}".encode(), "sha256")
        sig = quote(base64.b64encode(digest).decode(), safe="")
        if self._settings["escapes"] == "lower":
            sig = re.sub("%..", lambda match: match[0].lower(), sig)
        template = self._settings["token_policy" if name == "token_policy" else "token"]
        return fill(template, {"sr": sr, "sig": sig, "se": se}.__getitem__)

    # --- what others do ------------------------------------------------------------------------------------------

    def _do_call(self, text: str) -> None:
        options, rest = re.fullmatch(r"((?:[a-z]+=\d+ )*)(.*)", text).groups()  # type: ignore[union-attr]
        name, _, payload = rest.partition(" ")
        parts = [f'"methodName":{json.dumps(name)}']
        parts += [f'"{key}TimeoutInSeconds":{value}' for key, value in re.findall(r"([a-z]+)=(\d+)", options)]
        if payload != "absent":
            parts.append(f'"payload":{payload}')
        body = ("{" + ",".join(parts) + "}").encode()
        path = f"/twins/{quote(self._settings['device'], safe='')}"
        if "module" in self._dialogue.title:
            path += f"/modules/{self._settings['module']}"
        request = (
            f"POST {path}/methods?api-version={API_VERSION} HTTP/1.1\r\nHost: {self._hub.address}\r\n"
            f"Authorization: {self._hub.token()}\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body
        self._calls.append(self._callers.start(request))

    def _do_desire(self, patch: str) -> None:
        path = f"/twins/{quote(self._settings['device'], safe='')}"
        if "module" in self._dialogue.title:
            path += f"/modules/{self._settings['module']}"
        with self._hub.admin() as client:
            response = client.patch(path, json={"properties": {"desired": json.loads(patch)}})
        assert response.is_success, response.text

    def _do_expect(self, text: str) -> None:
        response = self._calls.pop(0).result(PATIENCE)
        code, _, body = text.partition(" ")
        if len(code) == 6:
            response.check_error(int(code))
        else:
            found = (str(response.status), response.body)
            assert found == (code, body.encode()), f"the caller got {found}"

    def _do_advance(self, seconds: str) -> None:
        self._hub.advance(float(seconds))

    def _do_live(self, seconds: str) -> None:
        left = float(seconds)
        while left > 0:
            step = min(left, self._keep_alive)
            self._hub.advance(step)
            self._connection.send(b"\xc0\x00")
            assert self._connection.read_packet() == b"\xd0\x00"
            left -= step

    def _do_closed(self, which: str = "") -> None:
        connection = self._former if which == "former" else self._connection
        assert connection is not None
        connection.wait_closed()

    def _do_drop(self) -> None:
        target = Target(self._settings["device"])
        self._connection.close()
        self._hub.until(lambda: self._hub.hub.table.get(target) is None)

    def _do_connect(self) -> None:
        self._go_on(Connection(self._hub, MQTT_PORT, self._settings.get("tls", "")))

    def _do_websocket(self, text: str) -> None:
        target, subprotocol = self._fill(text).split(" ")
        self._go_on(WebSocketConnection(self._hub, target, subprotocol, self._settings.get("tls", "")))

    def _go_on(self, connection: Connection) -> None:
        if self._former is not None:
            self._former.close()
        self._former, self._connection = self._connection, connection

    def _do_create(self) -> None:
        self._admin("PUT", {"deviceId": self._settings["device"], "authentication": self._keys()})
        if "module" in self._settings:
            ids = {"deviceId": self._settings["device"], "moduleId": self._settings["module"]}
            self._admin("PUT", {**ids, "authentication": self._keys()}, f"/modules/{self._settings['module']}")

    def _do_delete(self) -> None:
        self._admin("DELETE")

    def _do_disable(self) -> None:
        self._update({"status": "disabled"})

    def _do_enable(self) -> None:
        self._update({"status": "enabled"})

    def _update(self, fields: dict[str, object]) -> None:
        self._admin("PUT", {"deviceId": self._settings["device"], "authentication": self._keys(), **fields}, etag="*")

    @staticmethod
    def _keys() -> dict[str, object]:
        return {"type": "sas", "symmetricKey": {f"{name}Key": key for name, key in KEYS.items()}}

    def _admin(self, verb: str, body: dict[str, object] | None = None, below: str = "", etag: str = "") -> None:
        path = f"/devices/{quote(self._settings['device'], safe='')}{below}"
        with self._hub.admin() as client:
            response = client.request(verb, path, json=body, headers={"If-Match": etag} if etag else {})
        assert response.is_success or (verb == "DELETE" and response.status_code == 404), response.text
