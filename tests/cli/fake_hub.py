"""A small hub for the command's tests: the administration routes over a dictionary, in the hub's own error formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from methodhub.core.access import RIGHT_NAMES, Right, default_policies, generate_key
from methodhub.core.errors import ErrorCode, HubError

ANSWERS: dict[str, bytes] = {
    "echo": b'{"status":200,"payload":%b}',
    "teapot": b'{"status":418,"payload":{"big": 1e400, "b":1.0, "a":"\\u00e4"}}',
    "paste": b'{"status":200,"payload":not json}',
}
"""What the fake's one online device answers; %b is where the payload goes."""


class FakeHub:
    """Routes by hand: ids may hold anything, so the raw path is split before it is decoded."""

    def __init__(self, data_dir: Path, https_port: int | None) -> None:
        self.identities: dict[tuple[str, str], dict[str, Any]] = {}
        self.policies = default_policies()
        self.calls: list[bytes] = []
        self.facts = {
            "version": "1",
            "hostnames": ["127.0.0.1", "localhost"],
            "httpsPort": https_port,
            "mqttPort": None if https_port is None else 8883,
            "caFile": str(data_dir / "ca.pem"),
            "running": https_port is not None,
        }
        self.etags = 0
        self.script: dict[tuple[str, str], list[Response]] = {}
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []

    def says(self, method: str, path: str, *answers: Response) -> None:
        """From now on each request of this verb and path gets the next of these answers."""
        self.script[method, path] = list(answers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        path = [unquote(part) for part in scope["raw_path"].decode().strip("/").split("/")]
        assert request.query_params["api-version"] == "2021-04-12"
        try:
            response = self.answer(request, path, await request.body())
        except HubError as error:
            response = failed(error, nested=path[0] == "twins")
        await response(scope, receive, send)

    def answer(self, request: Request, path: list[str], body: bytes) -> Response:
        scripted = self.script.get((request.method, "/".join(path)))
        if scripted is not None:
            self.asked.append((request.method, "/".join(path), dict(request.headers), body))
            return scripted.pop(0)
        match [request.method, *path]:
            case ["GET", "admin", "hub"]:
                return JSONResponse(self.facts)
            case ["GET", "admin", "policies"]:
                return JSONResponse(
                    [
                        {
                            "name": policy.name,
                            "rights": [name for right, name in RIGHT_NAMES.items() if policy.rights & Right(right)],
                            "primaryKey": policy.primary_key,
                            "secondaryKey": policy.secondary_key,
                        }
                        for policy in self.policies
                    ]
                )
            case ["GET", "admin", "devices"]:
                after = request.query_params.get("after", "")
                # Smaller pages than asked for: a caller must not take a short page for the last one.
                limit = min(int(request.query_params["limit"]), 2)
                found = [doc for (d, m), doc in sorted(self.identities.items()) if not m and d > after]
                return JSONResponse(found[:limit])
            case ["GET", "devices", device, "modules"]:
                return JSONResponse([doc for (d, m), doc in sorted(self.identities.items()) if m and d == device])
            case [method, "devices", device]:
                return self.identity(method, (device, ""), request.headers.get("if-match"), body)
            case [method, "devices", device, "modules", module]:
                return self.identity(method, (device, module), request.headers.get("if-match"), body)
            case ["POST", "twins", device, "methods"]:
                return self.invoke((device, ""), body)
            case ["POST", "twins", device, "modules", module, "methods"]:
                return self.invoke((device, module), body)
        raise HubError(ErrorCode.GenericNotFound, "no such route")

    def identity(self, method: str, key: tuple[str, str], etag: str | None, body: bytes) -> Response:
        missing = HubError(ErrorCode.ModuleNotFound if key[1] else ErrorCode.DeviceNotFound, f"no {key}")
        current = self.identities.get(key)
        if method != "PUT" or key[1]:
            if (key[0], "") not in self.identities:
                raise HubError(ErrorCode.DeviceNotFound, key[0])
            if method != "PUT" and current is None:
                raise missing
        if method == "GET":
            return JSONResponse(current)
        if method == "DELETE":
            self.identities = {k: d for k, d in self.identities.items() if k != key and (key[1] or k[0] != key[0])}
            return Response(status_code=204)
        if current is not None and etag is None:
            raise HubError(
                ErrorCode.ModuleAlreadyExistsOnDevice if key[1] else ErrorCode.DeviceAlreadyExists, "there already"
            )
        if current is not None and etag not in ("*", f'"{current["etag"]}"'):
            raise HubError(ErrorCode.PreconditionFailed, "another etag")
        return JSONResponse(self.put(key, json.loads(body)))

    def put(self, key: tuple[str, str], body: dict[str, Any]) -> dict[str, Any]:
        self.etags += 1
        keys = body["authentication"].get("symmetricKey") or {}
        document = {
            "deviceId": key[0],
            **({"moduleId": key[1]} if key[1] else {"status": body.get("status", "enabled")}),
            "generationId": "1",
            "etag": f"etag{self.etags}",
            "connectionState": "Disconnected",
            "authentication": {
                "type": body["authentication"]["type"],
                "symmetricKey": {name: keys.get(name) or generate_key() for name in ("primaryKey", "secondaryKey")},
                "x509Thumbprint": {"primaryThumbprint": None, "secondaryThumbprint": None},
            },
        }
        self.identities[key] = document
        return document

    def invoke(self, key: tuple[str, str], body: bytes) -> Response:
        if key not in self.identities:
            raise HubError(ErrorCode.DeviceNotFound, "no such device")
        self.calls.append(body)
        name = json.loads(body)["methodName"]
        if name in ANSWERS:
            payload = body.partition(b'"payload":')[2].removesuffix(b"}") or b"null"
            content = ANSWERS[name].replace(b"%b", payload)
            return Response(content, headers={"content-type": "application/json; charset=utf-8"})
        raise HubError(ErrorCode[name] if name in ErrorCode.__members__ else ErrorCode.DeviceNotOnline, "It's off.")


def failed(error: HubError, nested: bool) -> Response:
    message = (
        json.dumps({"errorCode": int(error.code), "trackingId": "1", "message": error.message})
        if nested
        else f"ErrorCode:{error.code.name};{error.message}"
    )
    return JSONResponse(
        {"Message": message, "ExceptionMessage": ""},
        status_code=error.code.http_status,
        headers={"iothub-errorcode": error.code.name},
    )
