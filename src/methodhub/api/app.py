"""The routes of the service and of administration, as an ASGI application. The method route is not here: it is
answered in `api.methods`, one layer below."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp

from methodhub.api.access import services_of
from methodhub.api.admin import admin_routes
from methodhub.api.devices import device_routes
from methodhub.api.openapi.document import openapi_routes
from methodhub.api.responses import ECHO_HEADERS, JSON_TYPE, error_body, http_date, is_echoed
from methodhub.api.routes.bulk import bulk_routes
from methodhub.api.routes.digital_twins import digital_twin_routes
from methodhub.api.routes.gates import Authentication, Throttling
from methodhub.api.routes.jobs import job_routes
from methodhub.api.routes.policies import policy_routes
from methodhub.api.routes.query import query_routes
from methodhub.api.routes.registry import registry_routes
from methodhub.api.services import ApiServices
from methodhub.api.twins import twin_routes
from methodhub.core.access import ADMINISTRATOR
from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.ports import StoreUnavailable
from methodhub.iothub.rest import error_body_routing

log = structlog.get_logger()

Handler = Callable[[Request], Awaitable[Response]]


def build_app(services: ApiServices) -> ASGIApp:
    app = Starlette(
        routes=all_routes(),
        exception_handlers={
            HubError: on_hub_error,
            HTTPException: on_routing_error,
            StoreUnavailable: on_store_unavailable,
            Exception: on_unexpected,
        },
    )
    app.router.redirect_slashes = False
    app.state.services = services
    if services.throttles is not None:
        app.add_middleware(Throttling, throttles=services.throttles, refuse=on_hub_error)
    app.add_middleware(Authentication)
    return ResponseHeaders(app, services)  # around all of it: answers to what nobody expected have them, too


def all_routes() -> list[Route]:
    """Each route of the service and of administration, in the order in which they are looked at."""
    return [
        *device_routes(),
        *bulk_routes(),
        *twin_routes(),
        *query_routes(),
        *digital_twin_routes(),
        *registry_routes(),
        *job_routes(),
        *policy_routes(),
        *admin_routes(),
        *openapi_routes(),
        *probe_routes(),
        *method_routes(),
    ]


class ResponseHeaders:
    """`Date` and `x-ms-request-id` on every answer, and the caller's own request ids echoed."""

    def __init__(self, app: Any, services: ApiServices) -> None:
        self._app = app
        self._services = services

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = self._services.request_ids.next()
        scope.setdefault("state", {})["request_id"] = request_id.decode()
        echoed = [(name, value) for name, value in scope["headers"] if name in ECHO_HEADERS and is_echoed(value)]

        answered = False

        async def send_with_headers(message: Any) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                date = (b"date", http_date(self._services.clock.wall()))
                message["headers"] = [*message["headers"], date, (b"x-ms-request-id", request_id), *echoed]
            elif not message.get("more_body", False):
                answered = True
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception:
            if not (answered and scope["state"].get("told")):  # else the connection is good
                raise


async def on_hub_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HubError)
    if error.reason is not None:
        log.info(
            "request refused", verb=request.method, path=request.url.path, code=int(error.code), reason=error.reason
        )
    body = error_body(error, request.url.path, request.state.request_id, services_of(request).clock.wall())
    return Response(body, error.code.http_status, headers={"iothub-errorcode": error.code.name}, media_type=JSON_TYPE)


async def on_routing_error(request: Request, error: Exception) -> Response:
    """[HUB-routing-errors] Format F4, with the header that tells the two apart."""
    assert isinstance(error, HTTPException)
    # An empty module id makes of a module's path that of all modules, which has fewer verbs.
    if error.status_code == ErrorCode.GenericMethodNotAllowed.http_status or "/modules//" in request.url.path:
        code = ErrorCode.GenericMethodNotAllowed
        message = f"The requested resource does not support http method '{request.method}'."
    else:
        code = ErrorCode.GenericNotFound
        message = f"No HTTP resource was found that matches the path '{request.url.path}'."
    headers = {"iothub-errorcode": code.name, **(error.headers or {})}
    if "Allow" in headers:  # of the first route of this path; others have other verbs
        found = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
        headers["Allow"] = ", ".join(sorted(set().union(*(route.methods or () for route in found))))
    return Response(
        error_body_routing(message),
        code.http_status,
        headers=headers,
        media_type=JSON_TYPE,
    )


async def on_store_unavailable(request: Request, error: Exception) -> Response:
    """[HUB-store-unavailable] A full disk is not the caller's fault and may pass: 503, with the database's reason."""
    log.error("the store is unavailable", path=request.url.path, error=str(error))
    wrapped = HubError(ErrorCode.ServiceUnavailable, f"The store cannot be used at this time: {error}.")
    return await on_hub_error(request, wrapped)


async def on_unexpected(request: Request, error: Exception) -> Response:
    request.state.told = True
    log.error("request failed", path=request.url.path, request_id=request.state.request_id, exc_info=error)
    wrapped = HubError(ErrorCode.ServerError, "The hub failed unexpectedly; its log has the details.")
    return await on_hub_error(request, wrapped)


def probe_routes() -> list[Route]:
    return [
        Route("/health/live", live, methods=["GET"]),
        Route("/health/ready", ready, methods=["GET"]),
    ]


def method_routes() -> list[Route]:
    """For every verb but POST, which never comes here while a hub runs."""
    return [
        Route(f"/twins/{{device_id}}{module}/methods{slash}", no_hub, methods=["POST"])
        for module in ("", "/modules/{module_id}")
        for slash in ("", "/")
    ]


async def no_hub(request: Request) -> Response:
    raise HubError(ErrorCode.ServiceUnavailable, "No hub runs on this data. The call did not reach the device.")


async def live(request: Request) -> Response:
    return Response(b'{"status":"live"}', media_type=JSON_TYPE)


async def ready(request: Request) -> Response:
    """200 while every listener accepts; 503 before and while the hub stops."""
    if services_of(request).is_ready():
        return Response(b'{"status":"ready"}', media_type=JSON_TYPE)
    return Response(b'{"status":"not ready"}', 503, media_type=JSON_TYPE)


def administrator_app(app: Any) -> Any:
    """The same routes for whoever holds the data itself: no credential is asked for."""

    async def as_administrator(scope: Any, receive: Any, send: Any) -> None:
        scope.setdefault("state", {})["principal"] = ADMINISTRATOR
        await app(scope, receive, send)

    return as_administrator
