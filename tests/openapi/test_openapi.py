"""The OpenAPI document: it tells every route and no other, and a running hub does what it says, whatever is sent."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from methodhub.api.app import all_routes
from methodhub.api.openapi.document import document, rendered
from tests.harness import RunningHub

EXAMPLES = 6
"""Of each operation, beside the cases that Schemathesis derives from the document itself."""

KNOWN = {"device_id": "known", "module_id": "known", "job_id": "known"}
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with RunningHub(tmp_path_factory.mktemp("hub")) as running:
        yield running


def test_it_tells_every_route_of_back_ends_and_no_other() -> None:
    told = {(verb.upper(), path) for path, verbs in document()["paths"].items() for verb in verbs}
    there = {
        (verb, route.path.rstrip("/"))
        for route in all_routes()
        for verb in (route.methods or set()) - {"HEAD"}
        if not route.path.startswith("/admin")
    }
    assert told == there


def test_every_operation_has_an_id_and_every_schema_a_user() -> None:
    ids = [operation["operationId"] for verbs in document()["paths"].values() for operation in verbs.values()]
    assert len(ids) == len(set(ids))
    text = rendered().decode()
    for name in document()["components"]["schemas"]:
        assert f'"#/components/schemas/{name}"' in text


def test_anyone_may_read_it(shared: RunningHub) -> None:
    with shared.service() as client:
        response = client.get("/openapi.json", params={}, headers={"Authorization": ""})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert response.json() == document()


def test_without_a_credential_nothing_is_open_but_what_says_so(shared: RunningHub) -> None:
    names = dict.fromkeys(("device_id", "module_id", "job_id", "name", "component"), "known")
    with shared.service() as client:
        client.headers["Authorization"] = ""
        for path, verbs in document()["paths"].items():
            for verb, operation in verbs.items():
                status = client.request(verb.upper(), path.format(**names)).status_code
                assert status == (200 if operation.get("security") == [] else 401), (verb, path)


# --- Schemathesis ------------------------------------------------------------------------------------------------

schema = schemathesis.openapi.from_dict(document())
_turns = itertools.count()


@schema.hook
def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    """Every other id is one that exists: an unknown one is answered before most of the body is looked at. Nothing that
    exists is deleted, and the only job that is watched has ended: the others would be watched for an hour."""
    if not path_parameters or context.operation.method == "delete":
        return path_parameters
    known = next(_turns) % 2 == 0
    if context.operation.path.endswith("/progress"):
        return {"job_id": "known" if known else "unknown"}
    return {name: KNOWN.get(name, value) if known else value for name, value in path_parameters.items()}


def without_waiting(values: Any) -> Any:
    """The same without a valid wait for a device to connect, which none will."""
    if isinstance(values, dict) and str(values.get("connectTimeoutInSeconds", "")).isdecimal():
        return {**values, "connectTimeoutInSeconds": 0}
    return values


@schema.hook
def map_query(context: Any, query: Any) -> Any:
    return without_waiting(query)


@schema.hook
def map_body(context: Any, body: Any) -> Any:
    return without_waiting(body)


@pytest.fixture(scope="module")
def back_end(shared: RunningHub) -> Iterator[requests.Session]:
    """A session with the token of a policy that may do everything."""
    shared.create_device("known")
    shared.create_module("known", "known")
    job = {
        "queryCondition": "deviceId = 'nobody'",
        "cloudToDeviceMethod": {"methodName": "m"},
        "startTime": "2099-01-01",
    }
    with shared.service() as client:
        client.put("/jobs/v2/known", json=job).raise_for_status()
        client.post("/jobs/v2/known/cancel").raise_for_status()
    with requests.Session() as session:
        session.headers["Authorization"] = shared.token("iothubowner")
        yield session


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_hub_does_what_the_document_says(case: Any, shared: RunningHub, back_end: requests.Session) -> None:
    response = case.call(base_url=f"https://{shared.address}", session=back_end, verify=str(shared.ca_file))
    case.validate_response(response, checks=CHECKS)
