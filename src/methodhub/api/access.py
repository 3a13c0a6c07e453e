"""What each route asks of whoever calls it."""

from __future__ import annotations

from starlette.requests import Request

from methodhub.api.services import ApiServices
from methodhub.core.access import ADMINISTRATOR, Action, authorize
from methodhub.core.errors import ErrorCode, HubError
from methodhub.iothub.rest import check_api_version, query_value

STANDARD_ONLY = frozenset({Action.METHODS_INVOKE, Action.JOBS_READ, Action.JOBS_WRITE, Action.JOBS_DELETE})
"""What hubs of the basic tier lack: direct methods, and jobs, which call them on many devices."""


def services_of(request: Request) -> ApiServices:
    services: ApiServices = request.app.state.services
    return services


def check_tier(services: ApiServices, action: Action) -> None:
    """[HUB-basic-tier] Raises 403010."""
    if services.is_basic_tier and action in STANDARD_ONLY:
        raise HubError(
            ErrorCode.OperationNotAvailableInCurrentTier,
            "Direct methods and jobs are not available in the basic tier of this hub.",
        )


def demand(request: Request, action: Action, path: tuple[str, ...] | None = None) -> ApiServices:
    """The services, for a caller that may do this at this path and names an api-version. `path`: where it is done, if
    the request's own says it wrongly: a device may be named as a route is. Raises 401002, 400001, 403010."""
    refusal = getattr(request.state, "refusal", None)
    if refusal is not None:
        raise refusal
    if path is None:
        path = tuple(part for part in request.scope["path"].split("/") if part)
    authorize(request.state.principal, action, path)
    if request.state.principal is not ADMINISTRATOR:
        check_api_version(query_value(request.scope["query_string"], b"api-version"))
    check_tier(services_of(request), action)
    return services_of(request)


def demand_administrator(request: Request) -> ApiServices:
    """[HUB-no-tcp-administration] Only whoever may open the data directory's socket; for others there is no such
    route."""
    if getattr(request.state, "principal", None) is not ADMINISTRATOR:
        raise HubError(
            ErrorCode.GenericNotFound, f"No HTTP resource was found that matches the path '{request.url.path}'."
        )
    return services_of(request)
