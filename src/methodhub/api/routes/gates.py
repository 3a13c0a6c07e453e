"""What a request passes before its route: whoever sent it is found out where that took a question to an issuer, and
where the hub has throttles, it waits for its turn."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from methodhub.api.access import services_of
from methodhub.api.services import ApiServices
from methodhub.core.access import ADMINISTRATOR
from methodhub.core.errors import HubError
from methodhub.core.throttles.limits import method_blocks
from methodhub.core.throttles.throttle import Throttle
from methodhub.core.throttles.throttles import Throttles

_READS = {"GET", "HEAD"}


class Authentication:
    """[HUB-bearer-wait] Puts into the request's state who asks, or why they are refused, if that is not there yet."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        state = scope.get("state", {})
        authenticate = state.pop("authenticate", None)
        if authenticate is not None:
            try:
                state["principal"] = await authenticate()
            except HubError as error:
                state["refusal"] = error
        await self._app(scope, receive, send)


class Throttling:
    """Holds back requests of back ends that say who they are; an administrator is not held back. `refuse` renders an
    error."""

    def __init__(self, app: Any, throttles: Throttles, refuse: Any) -> None:
        self._app = app
        self._throttles = throttles
        self._refuse = refuse

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope.get("state", {}).get("principal", ADMINISTRATOR) is not ADMINISTRATOR:
            throttle, cost = self._find(scope)
            if throttle is not None:
                try:
                    await throttle.wait(cost)
                except HubError as error:
                    response = await self._refuse(Request(scope), error)
                    await response(scope, receive, send)
                    return
        await self._app(scope, receive, send)

    def _find(self, scope: Any) -> tuple[Throttle | None, int]:
        """By the route. [HUB-throttle-poll] Reading one job is free: SDKs ask for it five times a second. A bulk
        request counts by its items and a command by its payload, which their routes know."""
        throttles, method = self._throttles, scope["method"]
        match scope["path"].strip("/").lower().split("/"):
            case ["devices", "query"]:
                return throttles.queries, 1
            case ["devices"] | ["devices", "keys", "regenerate"] if method == "POST":
                return None, 0
            case ["devices" | "statistics", *_]:
                return throttles.registry, 1
            case ["twins", *_] if method in {"PUT", "PATCH"}:
                return throttles.twin_writes, 1
            case ["twins", *_] if method in _READS:
                return throttles.twin_reads, 1
            case ["jobs", "v2", job] | ["jobs", job] if method in _READS and job not in {"v2", "query"}:
                return None, 0
            case ["jobs", *_]:
                return throttles.jobs, 1
        return None, 0


async def count_payload(request: Request, payload: bytes) -> None:
    """[HUB-throttle-methods] A call counts by its blocks. Raises 429001, 429003."""
    services = services_of(request)
    if services.throttles is not None and request.state.principal is not ADMINISTRATOR:
        await services.throttles.methods.wait(method_blocks(len(payload)))


async def count_items(request: Request, items: int) -> ApiServices:
    """[HUB-throttle-bulk] Each item of a bulk request is an operation. Raises 429002, 429003."""
    services = services_of(request)
    if services.throttles is not None and request.state.principal is not ADMINISTRATOR:
        await services.throttles.registry.wait(items)
    return services
