"""Shared access signatures of back ends: what they prove, for how long and for which routes."""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import replace
from urllib.parse import quote

import pytest

from methodhub.core.access import Policy, generate_key, sign
from tests.harness import RunningHub
from tests.hub.peers import Caller

POLICIES = ("iothubowner", "service", "device", "registryRead", "registryReadWrite")


def policy_of(hub: RunningHub, name: str = "service") -> Policy:
    policy = hub.hub.policies.get(name)
    assert policy is not None
    return policy


def signed(
    hub: RunningHub, sr: str, name: str = "service", key: str | None = None, seconds: int = 600
) -> dict[str, str]:
    """The fields of a token over the raw text `sr`."""
    expiry = str(int(hub.hub.clock.wall()) + seconds)
    signature = b64encode(sign(key or policy_of(hub, name).primary_key, f"{sr}\n{expiry}".encode())).decode()
    return {"sr": sr, "sig": quote(signature, safe=""), "se": expiry, "skn": name}


def header(fields: dict[str, str]) -> str:
    return "SharedAccessSignature " + "&".join(f"{name}={value}" for name, value in fields.items())


@pytest.fixture(scope="module")
def caller(shared: RunningHub) -> Caller:
    shared.create_device("d1")
    shared.create_device("d10")
    shared.create_module("d1", "m")
    return Caller(shared)


@pytest.fixture(scope="module", autouse=True)
def closed(caller: Caller) -> object:
    yield
    caller.close()


def status(caller: Caller, token: str, path: str = "/twins/d1/methods", method: str = "POST") -> int:
    caller.token = token
    return caller.ask(method, path, b'{"methodName":"m"}' if method == "POST" else None).status


# --- spelling ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sr",
    [
        "{}",
        "{}:443",
        "{}%3A443",
        "{}/",
        "{}%2Ftwins",
        "{}/twins/d1",
        "{}%2Ftwins%2Fd1%2Fmethods",
        "https://{}",
        "{}?api-version=1",
    ],
)
def test_the_signature_is_over_the_raw_resource(shared: RunningHub, caller: Caller, sr: str) -> None:
    """[HUB-sas-signature] Whatever its spelling; a port in it is ignored."""
    text = sr.format(shared.address)
    expected = 401 if "?" in sr else 404
    assert status(caller, header(signed(shared, text))) == expected
    other = signed(shared, text) | {
        "sr": text.replace("%2F", "%2f").replace("%3A", "%3a") + ("" if "%" in text else "%20")
    }
    assert status(caller, header(other)) == 401


def test_fields_in_any_order_and_case(shared: RunningHub, caller: Caller) -> None:
    """Names in any case, the scheme too; the name of the policy encoded or not, the signature's slash and plus too."""
    fields = signed(shared, shared.address)
    for order in ("sr sig se skn", "skn se sig sr", "se skn sr sig"):
        assert status(caller, header({name: fields[name] for name in order.split()})) == 404
    assert status(caller, header({name.upper(): value for name, value in fields.items()})) == 404
    assert status(caller, header(fields).replace("SharedAccessSignature", "sharedaccesssignature")) == 404
    assert status(caller, header(fields | {"sig": fields["sig"].replace("%2F", "/").replace("%2B", "+")})) == 404
    assert status(caller, header(fields | {"skn": "%73ervice"})) == 404


def test_what_is_no_token(shared: RunningHub, caller: Caller) -> None:
    """[HUB-unauthorized] The caller learns that it may not, and never why."""
    good = signed(shared, shared.address)
    bad = [
        "",
        "Bearer x",
        "SharedAccessSignature",
        "SharedAccessSignature x",
        header(good).replace("&se=", "&se=x"),
        header(good) + "&sr=again",
        header(good | {"skn": "nobody"}),
        header(good | {"skn": "iothubowner"}),
        header(good | {"sig": "AAAA"}),
        header(good | {"sig": "%%%"}),
        header(good | {"se": str(int(good["se"]) + 1)}),
        header(good | {"se": "inf"}),
        header(good | {"se": "nan"}),
        header({name: value for name, value in good.items() if name != "skn"}),
        header(signed(shared, "else.where")),
        header(signed(shared, shared.address + "x")),
        header(signed(shared, shared.address, key=policy_of(shared, "device").primary_key)),
        header(good) + "&x=" + "y" * 5000,
    ]
    bodies = set()
    for token in bad:
        assert status(caller, token) == 401, token
        caller.token = token
        bodies.add(json.loads(json.loads(caller.invoke("d1").body)["Message"])["message"])
    assert bodies == {"Unauthorized"}


def test_either_key_of_a_policy(shared: RunningHub, caller: Caller) -> None:
    assert status(caller, header(signed(shared, shared.address, key=policy_of(shared).secondary_key))) == 404


# --- scope -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "path", "allowed"),
    [
        ("devices", "/devices/d1", True),
        ("devices/d1", "/devices/d1", True),
        ("Devices/d1", "/devices/d1/modules/m", True),
        ("devices/d1/modules/m", "/devices/d1/modules/m", True),
        ("devices/d1", "/devices/d10", False),
        ("devices/D1", "/devices/d1", False),
        ("devices/d1/modules/m", "/devices/d1", False),
        ("devices/d", "/devices/d1", False),
        ("twins/d1", "/devices/d1", False),
        ("twins/d1", "/twins/d1/methods", True),
        ("twins/d1", "/twins/d1/modules/m/methods", True),
        ("twins/d1", "/twins/d10/methods", False),
        ("twins/d1", "/twins%2Fd10%2Fmethods", False),
        ("twins/d1/modules/m", "/twins/d1/methods", False),
    ],
)
def test_scopes_go_by_whole_segments(shared: RunningHub, caller: Caller, scope: str, path: str, allowed: bool) -> None:
    token = header(signed(shared, quote(f"{shared.address}/{scope}", safe=""), "iothubowner"))
    assert (status(caller, token, path, "GET" if path.startswith("/devices") else "POST") != 401) == allowed


@pytest.mark.parametrize("name", ["keys", "query"])
def test_a_device_that_is_named_as_a_route_opens_no_route(shared: RunningHub, caller: Caller, name: str) -> None:
    """Its owner could rotate everybody's keys, or read everybody's twin."""
    token = header(signed(shared, quote(f"{shared.address}/devices/{name}", safe=""), "iothubowner"))
    regeneration = b'{"policyKey": "primaryKey", "devices": [{"id": "d1"}]}'
    query = b'{"query": "SELECT * FROM devices"}'
    for path, body in (("/devices/keys/regenerate", regeneration), ("/devices/query", query)):
        assert caller.ask("POST", f"{path}?api-version=2021-04-12", body, Authorization=token).status == 401


# --- time --------------------------------------------------------------------------------------------------------


def test_a_token_ends_five_minutes_after_its_end(timed: RunningHub) -> None:
    """[HUB-clock-skew] [HUB-known-head] Also one that was verified, and is remembered, before."""
    timed.create_device("d1")
    token = header(signed(timed, timed.address, seconds=60))
    with Caller(timed) as caller:
        for seconds, expected in ((0, 404), (59, 404), (99, 404), (100, 404), (100, 404), (3, 401)):
            timed.advance(seconds)
            assert status(caller, token) == expected
            assert status(caller, header(signed(timed, timed.address))) == 404


def test_remembered_tokens_fall_with_a_change_of_their_policy(shared: RunningHub, caller: Caller) -> None:
    """[HUB-known-head] A new key, other rights, no policy any more: at once, for each token that was verified before,
    in requests that are the same byte for byte."""
    policies = shared.hub.policies
    before = policies.all()
    service = policy_of(shared)
    tokens = [header(signed(shared, shared.address, key=key)) for key in (service.primary_key, service.secondary_key)]
    try:
        for changed, expected in (
            (replace(service, primary_key=generate_key()), [401, 404]),
            (replace(service, rights=policy_of(shared, "device").rights), [401, 401]),
            (None, [401, 401]),
        ):
            assert [status(caller, token) for token in tokens] == [404, 404]
            others = [each for each in before if each.name != "service"]
            shared.on_loop(lambda: policies.load([*others, changed] if changed else others))  # noqa: B023 - at once
            assert [status(caller, token) for token in tokens] == expected
            shared.on_loop(lambda: policies.load(before))
    finally:
        shared.on_loop(lambda: policies.load(before))


def test_remembered_tokens_are_bounded(timed: RunningHub) -> None:
    """Ten thousand; the oldest goes, and is verified anew when it comes again."""
    policies = timed.hub.policies
    policies._cache_size = 10
    with Caller(timed) as caller:
        tokens = [header(signed(timed, timed.address, seconds=seconds)) for seconds in range(60, 90)]
        for token in [*tokens, tokens[0]]:
            assert status(caller, token) == 404
    assert len(policies._cache) == 10


# --- rights ------------------------------------------------------------------------------------------------------

READERS, WRITERS, CALLERS = (
    {"iothubowner", "registryRead", "registryReadWrite"},
    {"iothubowner", "registryReadWrite"},
    {"iothubowner", "service"},
)
EVERYONE = set(POLICIES)
ROUTES: list[tuple[str, str, set[str]]] = [
    ("POST", "/twins/d1/methods", CALLERS),
    ("POST", "/twins/d1/modules/m/methods", CALLERS),
    ("GET", "/devices", READERS),
    ("GET", "/devices/", READERS),
    ("GET", "/devices/d1", READERS),
    ("HEAD", "/devices/d1", READERS),
    ("GET", "/devices/d1/modules", READERS),
    ("GET", "/devices/d1/modules/m", READERS),
    ("PUT", "/devices/d1", WRITERS),
    ("PUT", "/devices/d1/modules/m", WRITERS),
    ("DELETE", "/devices/unknown", WRITERS),
    ("DELETE", "/devices/d1/modules/unknown", WRITERS),
    ("POST", "/devices", WRITERS),
    ("POST", "/devices/keys/regenerate", WRITERS),
    ("GET", "/statistics/devices", READERS),
    ("GET", "/statistics/service", READERS),
    *((method, f"/twins/d1{module}", CALLERS) for method in ("GET", "PATCH", "PUT") for module in ("", "/modules/m")),
    ("POST", "/devices/query", CALLERS),
    ("DELETE", "/devices/d1/commands", CALLERS),
    ("DELETE", "/devices/d1/modules/m/commands", CALLERS),
    ("POST", "/digitaltwins/d1/commands/reboot", CALLERS),
    ("POST", "/digitaltwins/d1/components/c/commands/reboot", CALLERS),
    ("GET", "/jobs", CALLERS),
    ("POST", "/jobs/create", CALLERS),
    ("GET", "/jobs/j", CALLERS),
    ("DELETE", "/jobs/j", CALLERS),
    ("GET", "/jobs/v2/query", CALLERS),
    ("GET", "/jobs/v2/j", CALLERS),
    ("PUT", "/jobs/v2/j", CALLERS),
    ("POST", "/jobs/v2/j/cancel", CALLERS),
    ("GET", "/jobs/v2/j/progress", CALLERS),
    ("GET", "/openapi.json", EVERYONE | {""}),
    ("GET", "/metrics", CALLERS),
    ("GET", "/health/live", EVERYONE | {""}),
    ("GET", "/health/ready", EVERYONE | {""}),
    ("GET", "/admin/policies", set()),
    ("PUT", "/admin/policies/x", set()),
    ("DELETE", "/admin/policies/x", set()),
    ("POST", "/admin/policies/x/rotate", set()),
    ("GET", "/admin/hub", set()),
    ("GET", "/admin/devices", set()),
    ("GET", "/admin/ca-certificates", set()),
    ("GET", "/admin/ca-certificates/x", set()),
    ("PUT", "/admin/ca-certificates/x", set()),
    ("DELETE", "/admin/ca-certificates/x", set()),
    ("POST", "/admin/ca-certificates/x/verify", set()),
]


@pytest.mark.parametrize(("method", "path", "allowed"), ROUTES)
def test_each_route_demands_its_right(
    shared: RunningHub, caller: Caller, method: str, path: str, allowed: set[str]
) -> None:
    """[HUB-no-tcp-administration] All routes by all policies and by nobody; administration does not exist on TCP."""
    for name in (*POLICIES, ""):
        caller.token = shared.token(name) if name else ""
        body = b"{}" if method in {"POST", "PUT", "PATCH"} else None
        answer = caller.ask(method, path, body)
        if path.startswith("/admin/"):
            assert answer.status == 404 and b"Key" not in answer.body
        else:
            assert (answer.status != 401) == (name in allowed), (name, answer)


def test_every_route_stands_in_the_table_of_rights(shared: RunningHub) -> None:
    """A new route without a row above fails here."""
    from methodhub.api.app import all_routes  # noqa: PLC0415 - only this test looks inside

    patterns = {(method, route.path_regex) for route in all_routes() for method in route.methods or ()}
    for method, pattern in patterns:
        if method != "HEAD":
            assert any(
                row[0] == method and pattern.match(row[1].rstrip("/") + slash) for row in ROUTES for slash in ("", "/")
            ), pattern


def test_a_device_s_token_is_none_of_a_back_end(shared: RunningHub, caller: Caller) -> None:
    """Nor is its key under a policy's name; the UNIX socket alone needs no token."""
    assert status(caller, shared.device_token("d1")) == 401
    assert status(caller, shared.device_token("d1"), "/devices/d1", "GET") == 401
    key = dict(part.split("=", 1) for part in shared.device_connection_string("d1").split(";"))["SharedAccessKey"]
    assert status(caller, header(signed(shared, shared.address, key=key))) == 401
    with shared.admin() as admin:
        assert admin.get("/admin/policies").status_code == 200


def test_a_token_of_a_part_of_the_hub_is_not_for_metrics(shared: RunningHub) -> None:
    for resource, status in ((f"{shared.address}/twins/d1", 401), (shared.address, 200)):
        with Caller(shared) as caller:
            caller.token = shared.token("service", resource=resource)
            answer = caller.ask("GET", "/metrics")
            assert answer.status == status
            assert {"date", "x-ms-request-id"} <= answer.headers.keys()
