"""What only an administrator may ask: CA certificates, facts about the hub, all devices page by page."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from methodhub.api.access import demand_administrator, services_of
from methodhub.api.bodies import read_body
from methodhub.api.devices import MAX_LIST, json_response, parse_top
from methodhub.api.services import ApiServices
from methodhub.core.access import Action, authorize
from methodhub.core.certificates.rules import CertificateAuthority
from methodhub.core.errors import ErrorCode, HubError
from methodhub.iothub.identities import identity_json
from methodhub.iothub.rest import timestamp

_FACT_NAMES = {"https_port": "httpsPort", "mqtt_port": "mqttPort", "amqp_port": "amqpPort", "ca_file": "caFile"}


def admin_routes() -> list[Route]:
    return [
        Route("/admin/ca-certificates", authorities, methods=["GET"]),
        Route("/admin/ca-certificates/{name}", authority, methods=["GET"]),
        Route("/admin/ca-certificates/{name}", add_authority, methods=["PUT"]),
        Route("/admin/ca-certificates/{name}", remove_authority, methods=["DELETE"]),
        Route("/admin/ca-certificates/{name}/verify", verify_authority, methods=["POST"]),
        Route("/admin/hub", hub, methods=["GET"]),
        Route("/admin/devices", devices, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
    ]


class _Certificate(msgspec.Struct):
    certificate: str
    verified: bool = False


_decode = msgspec.json.Decoder(_Certificate).decode


async def _read_certificate(request: Request, services: ApiServices) -> _Certificate:
    try:
        return _decode(await read_body(request, services.limits.body))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise HubError(ErrorCode.IotHubFormatError, f"The body is no certificate in JSON: {error}.") from None


def authority_json(authority: CertificateAuthority) -> dict[str, Any]:
    found = x509.load_pem_x509_certificate(authority.pem.encode())
    return {
        "name": authority.name,
        "verified": authority.verified,
        "verificationCode": authority.verification_code or None,
        "subject": found.subject.rfc4514_string(),
        "issuer": found.issuer.rfc4514_string(),
        "notBefore": timestamp(found.not_valid_before_utc.timestamp()),
        "notAfter": timestamp(found.not_valid_after_utc.timestamp()),
        "sha1": found.fingerprint(hashes.SHA1()).hex().upper(),  # noqa: S303 - as tools show it
        "sha256": found.fingerprint(hashes.SHA256()).hex().upper(),
        "certificate": authority.pem,
    }


async def authorities(request: Request) -> Response:
    """In the order of their names."""
    services = demand_administrator(request)
    return json_response([authority_json(each) for each in services.authorities.all()])


async def authority(request: Request) -> Response:
    services = demand_administrator(request)
    return json_response(authority_json(services.authorities.get(request.path_params["name"])))


async def add_authority(request: Request) -> Response:
    services = demand_administrator(request)
    given = await _read_certificate(request, services)
    added = await services.authorities.add(request.path_params["name"], given.certificate, verified=given.verified)
    return json_response(authority_json(added))


async def verify_authority(request: Request) -> Response:
    services = demand_administrator(request)
    proof = await _read_certificate(request, services)
    return json_response(
        authority_json(await services.authorities.verify(request.path_params["name"], proof.certificate))
    )


async def remove_authority(request: Request) -> Response:
    services = demand_administrator(request)
    await services.authorities.remove(request.path_params["name"])
    return Response(status_code=204)


async def hub(request: Request) -> Response:
    services = demand_administrator(request)
    facts = {_FACT_NAMES.get(name, name): value for name, value in asdict(services.facts()).items()}
    return json_response({**facts, "running": services.methods is not None})


async def devices(request: Request) -> Response:
    """One page of devices in the order of their ids; `after` is the last id of the page before."""
    services = demand_administrator(request)
    limit = parse_top(request.query_params.get("limit"))
    found = await services.registry.page_devices(request.query_params.get("after", ""), min(limit, MAX_LIST))
    return json_response([identity_json(services.presence.overlay(each)) for each in found])


async def metrics(request: Request) -> Response:
    """Prometheus text, for an administrator or a back end with ServiceConnect; with `worker` of this process alone."""
    services = services_of(request)
    if getattr(request.state, "refusal", None) is not None:
        raise request.state.refusal
    authorize(request.state.principal, Action.TWINS_READ, ("metrics",))
    of_all = None if "worker" in request.query_params else services.metrics_of_workers
    text = services.metrics.exposition() if of_all is None else await of_all()
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")
