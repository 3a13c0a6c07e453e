"""HTTP as back ends use it and as they misuse it, on raw sockets."""

from __future__ import annotations

import gzip
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from methodhub.net.stream import Stream
from tests.harness import PATIENCE, RunningHub, local_bus
from tests.hub.peers import Caller, Device, ready_device


@pytest.fixture(scope="module", autouse=True)
def identities(shared: RunningHub) -> None:
    shared.create_device("d1")
    shared.create_device("away")


@pytest.fixture(scope="module")
def device(shared: RunningHub, identities: None) -> Iterator[Device]:
    with ready_device(shared) as device:
        yield device


# --- order -------------------------------------------------------------------------------------------------------


def test_pipelined_calls_are_answered_in_their_order(shared: RunningHub, device: Device) -> None:
    """[HUB-pipelining] The first is slow, the second fast, the third needs no device."""
    with Caller(shared) as caller:
        caller.send(caller.call("d1", "slow") + caller.call("d1", "fast") + caller.call("unknown", "m"))
        slow = device.request()
        assert slow.name == "slow"
        device.ping()
        assert caller.is_quiet()
        device.answer(slow, b'"slow"')
        device.answer(device.request(), b'"fast"')
        answers = [caller.response() for _ in range(3)]
    assert [json.loads(each.body).get("payload") for each in answers[:2]] == ["slow", "fast"]
    assert answers[2].code == 404001


def test_calls_and_registry_requests_pipelined_together_keep_their_order(shared: RunningHub, device: Device) -> None:
    """[HUB-pipelining] Both kinds behind each other, each way round."""
    with Caller(shared) as caller:
        read = caller.request("GET", "/devices/d1")
        caller.send(read + caller.call("d1", "one") + read + read + caller.call("d1", "two") + read)
        for name in (b'"one"', b'"two"'):
            request = device.request()
            assert b'"%b"' % request.name.encode() == name
            device.answer(request, name)
        bodies = [json.loads(caller.response().body) for _ in range(6)]
    assert ["deviceId" in each for each in bodies] == [True, False, True, True, False, True]
    assert [bodies[1]["payload"], bodies[4]["payload"]] == ["one", "two"]


def test_a_thousand_pipelined_calls_behind_a_slow_one(shared: RunningHub, device: Device) -> None:
    """[HUB-pipelining] What waits in line is worked off without growing the stack."""
    with Caller(shared) as caller:
        assert caller.invoke("away").code == 404103
        caller.send(caller.call("d1", "slow") + caller.call("away") * 1000)
        device.answer(device.request())
        assert caller.response().status == 200
        assert {caller.response().code for _ in range(1000)} == {404103}


# --- keep-alive and clocks ---------------------------------------------------------------------------------------


def test_an_idle_connection_lives_120_seconds(timed: RunningHub) -> None:
    """[HUB-keep-alive] Counted from the last answer, not from the first."""
    timed.create_device("d1")
    with Caller(timed) as caller:
        assert caller.invoke("d1").code == 404103
        timed.advance(100)
        assert caller.ask("GET", "/devices/d1").status == 200
        timed.advance(119)
        assert caller.invoke("d1").code == 404103
        timed.advance(119)
        assert caller.is_quiet()
        timed.advance(2)
        assert caller.rest() == b""


def test_a_connection_that_waits_for_a_device_is_not_idle(timed: RunningHub) -> None:
    """[HUB-keep-alive] [HUB-response-timeout] 300 s may pass within one call; its end comes 50 to 250 ms early."""
    timed.create_device("d1")
    with Caller(timed) as caller, ready_device(timed) as device:
        assert caller.invoke("unknown").code == 404001
        caller.send(caller.call("d1", responseTimeoutInSeconds=300))
        device.request()
        timed.advance(299.7)
        assert caller.is_quiet()
        timed.advance(0.25)
        assert caller.response().code == 504101
        timed.advance(119)
        assert caller.invoke("unknown").code == 404001


def test_a_request_that_drips_is_cut_after_30_seconds(timed: RunningHub) -> None:
    """[HUB-request-clock] One byte a second, once in the head and once in the body."""
    for skipped in (0, -3):
        with Caller(timed) as caller:
            assert caller.invoke("unknown").code == 404001
            request = caller.call("unknown", payload="x" * 50)
            if skipped:
                caller.send(request[:-60])
                request = request[-60:]
            for byte in request[:29]:
                caller.send(bytes([byte]))
                timed.advance(1)
            assert caller.is_quiet()
            timed.advance(2.5)
            assert b" 408 " in caller.rest()[:20]


def test_a_request_that_is_refused_early_may_not_linger(timed: RunningHub) -> None:
    """[HUB-request-clock] [HUB-authorize-first] 401 is out before the body; the body never comes."""
    with Caller(timed) as caller:
        assert caller.invoke("unknown").code == 404001
        caller.token = "SharedAccessSignature nonsense"
        caller.send(caller.request("POST", "/twins/d1/methods", Content_Length="10"))
        assert caller.response().code == 401002
        timed.advance(31)
        caller.rest()


# --- bodies ------------------------------------------------------------------------------------------------------


def test_authorization_is_decided_before_the_body(shared: RunningHub) -> None:
    """[HUB-authorize-first] The answer is there although not a byte of the body is sent."""
    with Caller(shared, "device") as caller:
        caller.send(caller.request("POST", "/twins/d1/methods", Content_Length="1000"))
        assert caller.response().code == 401002
    with Caller(shared, "service") as caller:
        caller.send(caller.request("PUT", "/devices/d9", Content_Length="1000"))
        assert caller.response().status == 401


def test_expect_100_continue(shared: RunningHub, device: Device) -> None:
    """The hub asks for the body where it wants it, on either path."""
    with Caller(shared) as caller:
        body = b'{"methodName":"m"}'
        caller.send(caller.request("POST", "/twins/d1/methods", Content_Length=str(len(body)), Expect="100-continue"))
        assert caller.response().status == 100
        caller.send(body)
        device.answer(device.request(), b"1")
        assert caller.response().body == b'{"status":200,"payload":1}'
        caller.send(caller.request("PUT", "/devices/e1", Content_Length="2", Expect="100-continue"))
        assert caller.response().status == 100
        caller.send(b"{}")
        assert caller.response().status == 200
        assert caller.ask("GET", "/devices/e1").status == 200


@pytest.mark.parametrize(("method", "path"), [("POST", "/twins/d1/methods"), ("PUT", "/devices/e9")])
def test_expect_100_continue_without_a_right_to_it(shared: RunningHub, method: str, path: str) -> None:
    """[HUB-authorize-first] 401 and no 100; since the body may or may not follow, the connection ends."""
    for policy in ("", "device"):
        with Caller(shared, policy) as caller:
            caller.send(caller.request(method, path, Content_Length="1000", Expect="100-continue"))
            assert caller.response().status == 401
            assert caller.rest() == b""


def test_chunked_bodies(shared: RunningHub, device: Device) -> None:
    """A body in chunks, with an extension and a trailer, on either path."""
    with Caller(shared) as caller:
        head = caller.request("POST", "/twins/d1/methods", Transfer_Encoding="chunked")
        caller.send(head + b'12;x=y\r\n{"methodName":"m",\r\n')
        caller.send(b'e\r\n"payload":[1]}\r\n0\r\nX-Sum: 1\r\n\r\n')
        request = device.request()
        assert request.payload == b"[1]"
        device.answer(request)
        assert caller.response().status == 200
        head = caller.request("PUT", "/devices/chunked", Transfer_Encoding="chunked")
        caller.send(head + b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n")
        assert caller.response().status == 200


def test_gzip_bodies(shared: RunningHub, device: Device) -> None:
    """[HUB-gzip] Understood; the payload reaches the device as it was packed."""
    with Caller(shared) as caller:
        body = gzip.compress(b'{"methodName":"m","payload":{"a": 1.0}}')
        caller.send(caller.request("POST", "/twins/d1/methods", body, Content_Encoding="gzip"))
        request = device.request()
        assert request.payload == b'{"a": 1.0}'
        device.answer(request)
        assert caller.response().status == 200
        assert caller.ask("PUT", "/devices/zipped", gzip.compress(b"{}"), Content_Encoding="gzip").status == 200


GOOD = gzip.compress(b'{"methodName":"m"}', mtime=0)


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (gzip.compress(b" " * 50_000_000, mtime=0), "gzip", (400, 413)),
        (GOOD[:-3], "gzip", (400,)),
        (GOOD[:12], "gzip", (400,)),
        (GOOD + b"x", "gzip", (400,)),
        (b"{}", "gzip", (400,)),
        (b"", "gzip", (400,)),
        (GOOD, "br", (415,)),
        (GOOD, "gzip, gzip", (415,)),
    ],
    ids=["bomb", "no end", "cut short", "more behind", "plain", "empty", "brotli", "twice"],
)
def test_gzip_bodies_that_are_none(shared: RunningHub, body: bytes, encoding: str, status: tuple[int, ...]) -> None:
    """[HUB-gzip] A bomb, cut short, followed by something, no gzip at all, another encoding. The connection stays."""
    with Caller(shared) as caller:
        assert caller.ask("POST", "/twins/d1/methods", body, Content_Encoding=encoding).status == status[0]
        assert caller.ask("PUT", "/devices/g1", body, Content_Encoding=encoding).status == status[-1]
        assert caller.ask("GET", "/devices/d1").status == 200


def test_bodies_and_heads_that_are_too_large(shared: RunningHub) -> None:
    """[HUB-http-limits] 400004 for a call, 413001 for the registry, 431 for a head; with a length and in chunks."""
    big = b" " * 262_145
    for path, method, status in (("/twins/d1/methods", "POST", 400), ("/devices/b1", "PUT", 413)):
        with Caller(shared) as caller:
            answer = caller.ask(method, path, big)
            assert answer.status == status
            assert answer.headers["iothub-errorcode"] == {400: "ArgumentInvalid", 413: "MessageTooLarge"}[status]
            assert caller.ask("GET", "/devices/d1").status == 200
            caller.send(caller.request(method, path, Transfer_Encoding="chunked"))
            for _ in range(5):
                caller.send(b"10000\r\n" + b" " * 65536 + b"\r\n")
            assert caller.response().status == status
    with Caller(shared) as caller:
        assert caller.ask("GET", "/devices/d1").status == 200
        caller.send(caller.request("GET", "/devices/d1", X_Big="x" * 65_536))
        assert caller.response().status == 431
        assert caller.rest() == b""


def test_a_body_without_end_is_cut(timed: RunningHub) -> None:
    """[HUB-http-limits] The rest of a refused body is thrown away, but not for ever."""
    with Caller(timed) as caller:
        caller.send(caller.request("POST", "/twins/d1/methods", Content_Length="100000000"))
        caller.send(b" " * 4_000_000)
        assert caller.response().code == 400004
        assert caller.rest() == b""
        timed.advance(6)
        with pytest.raises(OSError):
            for _ in range(1_000):
                caller.send(b" " * 65_536)


# --- shapes of a request -----------------------------------------------------------------------------------------


def test_absolute_targets_old_versions_and_head(shared: RunningHub) -> None:
    """`GET https://host/path`, HTTP/1.0, HEAD."""
    with Caller(shared) as caller:
        for path in ("/devices/d1", "/twins/unknown/methods"):
            method = "GET" if "devices" in path else "POST"
            answer = caller.ask(method, f"https://{shared.address}{path}", b'{"methodName":"m"}')
            assert (answer.status, answer.headers.get("iothub-errorcode")) in {(200, None), (404, "DeviceNotFound")}
        head = caller.ask("HEAD", "/devices/d1")
        assert head.status == 200 and int(head.headers["content-length"]) > 100
        assert caller.ask("GET", "/devices/d1").status == 200
    for method, path, status in (("GET", "/devices/d1", 200), ("POST", "/twins/unknown/methods", 404)):
        with Caller(shared) as caller:
            caller.send(caller.request(method, path, b'{"methodName":"m"}', version="1.0", Connection="keep-alive"))
            answer = caller.response()
            assert (answer.status, answer.headers["connection"]) == (status, "close")
            assert caller.rest() == b""


@pytest.mark.parametrize(
    "path",
    [
        "/twins/a%23b%25c/methods",
        "/twins/a%23b%25c/methods/",
        "/twins/a#b%25c/methods",
        "/twins%2Fa%23b%25c%2Fmethods",
        "/Twins/a%23b%25c/METHODS",
    ],
)
def test_ids_in_any_spelling_of_the_path(shared: RunningHub, path: str) -> None:
    """Encoded, raw, slashes encoded too, with a trailing slash: all name the device `a#b%c`."""
    with Caller(shared) as caller:
        caller.ask("PUT", "/devices/a%23b%25c", {})
        assert caller.ask("POST", path, {"methodName": "m"}).code == 404103
        read = path.replace("methods", "").replace("METHODS", "")
        for twins in ("twins", "Twins"):
            read = read.replace(twins, "devices")
        read = read.rstrip("/").removesuffix("%2F")
        assert json.loads(caller.ask("GET", read).body)["deviceId"] == "a#b%c"


def test_every_character_of_an_id_goes_through_a_path(shared: RunningHub) -> None:
    """Percent-encoded once, ids may hold all of them; a module's too."""
    name = "az-:.+%_#*?!(),=@;$'"
    with Caller(shared) as caller:
        path = f"/devices/{quote(name, safe='')}"
        assert caller.ask("PUT", path, {"deviceId": name}).status == 200
        module = f"{path}/modules/{quote(name, safe='')}"
        assert caller.ask("PUT", module, {"deviceId": name, "moduleId": name}).status == 200
        assert json.loads(caller.ask("GET", module).body)["moduleId"] == name
        twin = module.replace("/devices/", "/twins/")
        assert caller.ask("POST", f"{twin}/methods", {"methodName": "m"}).code == 404103
        assert caller.ask("DELETE", module).status == 204


def test_request_ids_are_echoed(shared: RunningHub) -> None:
    """[HUB-echo] 1 to 128 printable characters come back, others do not; every answer has an id of the hub's own."""
    seen = set()
    with Caller(shared) as caller:
        for method, path in (("POST", "/twins/unknown/methods"), ("GET", "/devices/d1"), ("GET", "/nothing")):
            for value, echoed in (("a" * 128, True), ("a" * 129, False), ("~ !", True), ("\xe9", False)):
                answer = caller.ask(method, path, b'{"methodName":"m"}', Request_Id=value, x_ms_client_request_id=value)
                assert answer.headers.get("request-id") == (value if echoed else None)
                assert answer.headers.get("x-ms-client-request-id") == (value if echoed else None)
                seen.add(answer.headers["x-ms-request-id"])
    assert len(seen) == 12


def test_the_headers_of_an_answer(shared: RunningHub, device: Device) -> None:
    """Type, length, date, ETag; the name of an error, and its reason phrase."""
    with Caller(shared) as caller:
        caller.send(caller.call("d1"))
        device.answer(device.request(), b"", -7)
        good = caller.response()
        assert (good.status, good.reason, good.body) == (200, "OK", b'{"status":-7,"payload":null}')
        assert good.headers["content-type"] == "application/json; charset=utf-8"
        assert good.headers["etag"].startswith('"') and good.headers["date"].endswith("GMT")
        bad = caller.invoke("unknown")
        assert (bad.status, bad.reason) == (404, "Not Found")
        assert bad.headers["iothub-errorcode"] == "DeviceNotFound"


def test_a_path_tells_all_of_its_verbs(shared: RunningHub) -> None:
    with Caller(shared) as caller:
        for path, verbs in (("/devices/d1", "DELETE, GET, HEAD, PUT"), ("/twins/d1", "GET, HEAD, PATCH, PUT")):
            answer = caller.ask("OPTIONS", path)
            assert (answer.status, answer.headers["allow"]) == (405, verbs)


@pytest.mark.parametrize("hosts", [b"", b"Host: a\r\nHost: b\r\n", b"Host: a\r\n" * 2])
def test_a_request_names_one_host(shared: RunningHub, hosts: bytes) -> None:
    """[HTTP 3.2]"""
    with Caller(shared) as caller:
        caller.send(b"GET /devices/d1 HTTP/1.1\r\n" + hosts + b"\r\n")
        assert caller.response().status == 400
        assert caller.rest() == b""


def test_an_error_that_nobody_expected_leaves_the_connection_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunningHub(tmp_path) as hub, Caller(hub, "iothubowner") as caller:
        hub.create_device("d1")

        async def fails(*_: object) -> None:
            raise RuntimeError("nobody expected this")

        with monkeypatch.context() as patch:
            patch.setattr(hub.hub.registry, "read", fails)
            assert caller.ask("GET", "/devices/d1").status == 500
        assert caller.ask("GET", "/devices/d1").status == 200


def test_the_method_override_counts_before_the_right(shared: RunningHub) -> None:
    """[HUB-override] A POST that means DELETE needs the right to delete, on any path."""
    with Caller(shared) as owner, Caller(shared, "registryRead") as reader:
        assert owner.ask("PUT", "/devices/o1", {}).status == 200
        assert reader.ask("POST", "/devices/o1", X_HTTP_Method_Override="DELETE").status == 401
        assert reader.ask("POST", "/devices/o1", X_HTTP_Method_Override="get").status == 200
        assert reader.ask("GET", "/devices/o1", X_HTTP_Method_Override="DELETE").status == 200
        assert reader.ask("POST", "/devices/o1", X_HTTP_Method_Override="HEAD").body
        assert owner.ask("POST", "/devices/o1", X_HTTP_Method_Override="DELETE").status == 204
        assert owner.ask("POST", "/twins/d1/methods", b"{}", X_HTTP_Method_Override="PATCH").status == 405


def test_api_versions(shared: RunningHub) -> None:
    """From 2016-11-14 on, whatever comes; without one 400001 in body and header."""
    with Caller(shared) as caller:
        for path, method in (("/devices/d1", "GET"), ("/twins/unknown/methods", "POST")):
            for version in ("2016-11-14", "2018-06-30", "2020-05-31-preview", "2024-03-31", "2031-01-01"):
                answer = caller.ask(method, f"{path}?api-version={version}", b'{"methodName":"m"}')
                assert answer.status in {200, 404}
            for query in ("?no-api-version=1", "?api-version=", "?api-version=2016-11-13", "?api-version=latest"):
                answer = caller.ask(method, path + query, b'{"methodName":"m"}')
                assert (answer.status, answer.headers["iothub-errorcode"]) == (400, "InvalidProtocolVersion")


def test_error_formats(shared: RunningHub) -> None:
    """[HUB-routing-errors] F1 below /twins, F2 elsewhere, F4 for a route or verb that does not exist."""
    with Caller(shared) as caller, Caller(shared, "") as stranger:
        nested = json.loads(caller.invoke("unknown").body)
        assert nested["ExceptionMessage"] == "" and json.loads(nested["Message"])["errorCode"] == 404001
        nested = json.loads(stranger.invoke("d1").body)
        assert json.loads(nested["Message"])["errorCode"] == 401002
        listed = json.loads(caller.ask("GET", "/devices/unknown").body)
        assert listed["Message"].startswith("ErrorCode:DeviceNotFound;")
        assert listed["ExceptionMessage"].startswith("Tracking ID:")
        for method, path, status in (
            ("GET", "/nothing", 404),
            ("GET", "/", 404),
            ("GET", "/twins/d1/unknown", 404),
            ("PATCH", "/devices/d1", 405),
            ("GET", "/twins/d1/methods", 405),
            ("PUT", "/twins/d1/modules/m/methods/", 405),
            ("POST", "/devices/d1", 405),
        ):
            answer = caller.ask(method, path)
            assert (answer.status, set(json.loads(answer.body))) == (status, {"Message"}), (method, path)
            names = {404: "GenericNotFound", 405: "GenericMethodNotAllowed"}
            assert answer.headers["iothub-errorcode"] == names[status]


def test_an_upgrade_that_is_not_offered_gets_an_answer(shared: RunningHub) -> None:
    """Whoever asks for another protocol is told that there is none."""
    for method, path in (("GET", "/devices/d1"), ("POST", "/twins/d1/methods")):
        with Caller(shared) as caller:
            caller.send(caller.request(method, path, b"", Connection="Upgrade", Upgrade="h2c"))
            assert caller.response().status in {200, 400, 426}


# --- callers that do not read, or go away ----------------------------------------------------------------------------


def test_a_caller_that_does_not_read_is_not_read_either(shared: RunningHub) -> None:
    """[HUB-slow-caller] Its answers stay within the buffers; all of them are there when it reads again."""
    with Caller(shared) as caller:
        assert caller.invoke("away").code == 404103
        own = caller.socket.getsockname()
        streams = shared.on_loop(lambda: list(next(iter(shared.hub._listeners)).admission.streams))
        (stream,) = (each for each in streams if isinstance(each, Stream) and each.get_extra_info("peername") == own)
        call, sent, left = caller.call("away"), 0, b""
        caller.socket.settimeout(0.0)
        while not left or stream.is_reading():
            left = left or call
            try:
                left = left[caller.socket.send(left) :]
                sent += not left
            except (BlockingIOError, ssl.SSLWantWriteError):
                shared.on_loop(lambda: None)
        assert shared.on_loop(stream.get_write_buffer_size) < 1024 * 1024
        caller.socket.settimeout(PATIENCE)
        assert {caller.response().code for _ in range(sent)} == {404103}


def test_a_caller_that_hangs_up_frees_everything(shared: RunningHub, device: Device) -> None:
    """[HUB-hang-up] The open call, its place in the ledger, the waiter and what was pipelined behind it."""
    hub = shared.hub
    target = shared.on_loop(lambda: hub.table.get(next(iter(hub.table)).target))
    assert target is not None
    with Caller(shared) as calling, Caller(shared) as waiting:
        calling.send(calling.call("d1") + calling.call("d1"))
        waiting.send(waiting.call("away", connectTimeoutInSeconds=300))
        request = device.request()
        shared.until(lambda: len(hub.methods.open) == 2 and len(target.pending) == 1)
        late = hub.metrics.late_answers
    shared.until(lambda: not hub.methods.open and not target.pending and not local_bus(shared).waiters.targets())
    device.answer(request)
    device.ping()
    assert hub.metrics.late_answers == late + 1


def test_a_hub_with_as_many_open_calls_as_it_takes(tmp_path: Path) -> None:
    """One more is 429001; a place is free as soon as a caller has gone."""
    with RunningHub(tmp_path / "hub", hub_open_calls=2) as hub, Caller(hub) as last:
        hub.create_device("away")
        with Caller(hub) as first, Caller(hub) as second:
            for caller in (first, second):
                caller.send(caller.call("away", connectTimeoutInSeconds=300))
            hub.until(lambda: len(hub.hub.methods.open) == 2)
            answer = last.invoke("away")
            assert (answer.status, answer.code) == (429, 429001)
        hub.until(lambda: not hub.hub.methods.open)
        assert last.invoke("away").code == 404103
