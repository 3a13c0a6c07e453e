"""Topics, filters and user names of the MQTT dialect."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methodhub.core.calls import RID_START_LIMIT
from methodhub.core.identity import ID_PATTERN, Target
from methodhub.iothub.mqtt import (
    MethodAnswer,
    Other,
    Published,
    TwinGet,
    TwinPatch,
    client_id_of,
    filter_takes_method,
    is_known_filter,
    is_method_filter,
    method_topic,
    parse_topic,
    parse_user_name,
    twin_response_topic,
)

D, M = Target("Dev"), Target("Dev", "Mod")

# --- user names --------------------------------------------------------------------------------------------------

QUERIES = [
    "?api-version=2019-10-01&DeviceClientType=azure-iot-device-iothub-py%2F2.14.0%28python%3B%20Linux%29",
    "?api-version=2021-04-12&DeviceClientType=azure-iot-device%2F1.18.4%20(node%20v20%3B%20Linux)",
    "?api-version=2020-09-30&DeviceClientType=iothubclient%2f1.14.0%20(native%3b%20Linux%3b%20x86_64)",
    "?api-version=2020-09-30&DeviceClientType=.NET%2F1.42.3&auth-chain=a%3bb&model-id=dtmi:com:x;1",
    "?api-version=2020-09-30&model-id=dtmi:a/b;1&DeviceClientType=com.microsoft.azure.sdk.iot.iot-device-client%2F2",
    "api-version=2016-11-14",
    "DeviceClientType=x/y&api-version=2018-06-30",
    "other=1&api-version=2018-06-30",
    "Api-Version=2018-06-30",
    "model-id=dtmi:x",
    "?",
    "",
]


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("target", [D, M, Target("a?b#c%d+;'$(!)*,:@=._-"), Target("x" * 128, "y" * 128)])
@pytest.mark.parametrize("host", ["hub.local", "HUB.Local", "hub.local:8883"])
def test_user_names_of_every_sdk(host: str, target: Target, query: str) -> None:
    name = parse_user_name(f"{host}/{target}/{query}")
    assert (name.host, name.target) == ("hub.local", target)


def test_a_user_name_without_properties() -> None:
    assert parse_user_name("hub/Dev").target == D
    assert parse_user_name("hub/Dev/Mod").target == M
    for odd in ("api-version=1", "?x"):  # where the id stands, it is one
        assert (
            parse_user_name(f"hub/{odd}").target == parse_user_name(f"hub/{odd}/?api-version=1").target == Target(odd)
        )


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "hub",
        "hub/",
        "/Dev",
        "/Dev/?api-version=1",
        "hub//?api-version=1",
        "hub/?api-version=1&x=y",
        "hub/?a&b/Dev",
        "hub/a/b/c",
        "hub/a b",
        "hub/ä",
        "hub/Dev\x00",
        "hub/" + "x" * 129,
        "hub/Dev/" + "x" * 129,
        "hub\\Dev",
    ],
)
def test_what_is_no_user_name(bad: str) -> None:
    with pytest.raises(ValueError, match="user name"):
        parse_user_name(bad)


PIECES = st.lists(st.one_of(st.text(), st.sampled_from(["hub", "/", "Dev", "?api-version=1", ":", "%2F", *QUERIES])))


@given(PIECES.map("".join))
def test_any_text_is_a_user_name_or_a_value_error(text: str) -> None:
    try:
        name = parse_user_name(text)
    except ValueError:
        return
    assert all(ID_PATTERN.fullmatch(part) for part in name.target if part)
    assert name.target.device_id
    assert name.host


def test_the_client_id_is_the_target() -> None:
    assert (client_id_of(D), client_id_of(M)) == ("Dev", "Dev/Mod")


# --- filters -----------------------------------------------------------------------------------------------------

COMMON = [
    "$iothub/methods/POST/#",
    "$iothub/methods/POST/reboot/#",
    "$iothub/twin/res/#",
    "$iothub/twin/PATCH/properties/desired/#",
]
OF_DEVICE = ["devices/Dev/messages/devicebound/#"]
OF_MODULE = [f"devices/Dev/modules/Mod/{rest}" for rest in ("#", "inputs/#", "messages/devicebound/#")]


@pytest.mark.parametrize("known", COMMON)
def test_filters_for_everybody(known: str) -> None:
    assert is_known_filter(known, D)
    assert is_known_filter(known, M)
    assert is_method_filter(known) == known.startswith("$iothub/methods")


@pytest.mark.parametrize(("own", "target", "other"), [(OF_DEVICE, D, M), (OF_MODULE, M, D)])
def test_filters_of_one_target_only(own: list[str], target: Target, other: Target) -> None:
    for known in own:
        assert is_known_filter(known, target)
        assert not is_known_filter(known, other)
        assert not is_known_filter(known, Target("dev", target.module_id))
        assert not is_method_filter(known)


@pytest.mark.parametrize(
    "foreign",
    [
        "#",
        "+/#",
        "$iothub/#",
        "$iothub/methods/#",
        "$iothub/methods/res/#",
        "$iothub/methods/POST",
        "devices/#",
        "devices/Dev/#",
        "devices/+/messages/devicebound/#",
        "devices/Other/messages/devicebound/#",
        "$SYS/#",
        "",
        "$iothub/twin/res/200/#",
        "$IOTHUB/methods/POST/#",
        "devices/Dev/modules/Mod/messages/events/#",
    ],
)
def test_other_filters_are_not_granted(foreign: str) -> None:
    assert not is_known_filter(foreign, D)
    assert not is_known_filter(foreign, M)


@pytest.mark.parametrize(
    ("below", "taken"),
    [
        ("#", True),
        ("reboot/#", True),
        ("reboot/+", True),
        ("+/#", True),
        ("+/+", True),
        ("reboot", False),
        ("reboot/", False),
        ("+", False),
        ("Reboot/#", False),
        ("reboot2/#", False),
        ("rebo/#", False),
        ("reboot/?$rid=+", False),
        ("reboot/+/#", True),
        ("+/+/#", True),
        ("reboot/+/+/#", False),
        ("+/+/+", False),
        ("/reboot/#", False),
        ("", False),
    ],
)
def test_which_method_a_filter_takes(below: str, taken: bool) -> None:
    """[MQTT-4.7.1-2] [MQTT-4.7.1-3] The topic of a call is `.../reboot/?$rid=...`."""
    assert filter_takes_method(f"$iothub/methods/POST/{below}", "reboot") is taken


METHOD = st.text(st.sampled_from(string.ascii_letters + string.digits + "!%&'*-.^_`|~"), min_size=1, max_size=8)


def matches(topic_filter: list[str], topic: list[str]) -> bool:
    """MQTT 4.7, as the standard tells it."""
    if not topic_filter or not topic:
        return topic_filter in ([], ["#"]) and not topic
    if topic_filter[0] == "#":
        return True
    return topic_filter[0] in ("+", topic[0]) and matches(topic_filter[1:], topic[1:])


@given(METHOD, st.lists(st.one_of(METHOD, st.sampled_from(["+", "", "reboot"])), max_size=3), st.booleans())
def test_filters_match_as_the_standard_says(name: str, levels: list[str], many: bool) -> None:
    levels = [*levels, "#"] if many or not levels else levels
    text = "/".join(levels)
    topic = method_topic(name, 0xABC).decode().removeprefix("$iothub/methods/POST/")
    expected = matches(text.split("/"), topic.split("/"))
    assert filter_takes_method(f"$iothub/methods/POST/{text}", name) == expected


# --- topics ------------------------------------------------------------------------------------------------------


def test_the_topic_of_a_call() -> None:
    """[HUB-rid]"""
    assert method_topic("a.b*c%41", 0xABCDEF) == b"$iothub/methods/POST/a.b*c%41/?$rid=abcdef"
    assert twin_response_topic(200, "0f") == b"$iothub/twin/res/200/?$rid=0f"
    assert twin_response_topic(204, "x", 7) == b"$iothub/twin/res/204/?$rid=x&$version=7"


@given(st.integers(-(2**31), 2**31 - 1), st.integers(0, RID_START_LIMIT + 10**6))
def test_every_status_and_rid_comes_back(status: int, rid: int) -> None:
    for spelled in (f"{rid:x}", f"{rid:X}", f"{rid:08x}"):
        assert parse_topic(f"$iothub/methods/res/{status}/?$rid={spelled}", D) == MethodAnswer(status, rid)


RES = "$iothub/methods/res/"


@pytest.mark.parametrize(
    ("topic", "meaning"),
    [
        (f"{RES}200/?$rid=1f", MethodAnswer(200, 0x1F)),
        (f"{RES}200?$rid=1f", MethodAnswer(200, 0x1F)),
        (f"{RES}200/$rid=1f", MethodAnswer(200, 0x1F)),
        (f"{RES}200/?$RID=1f", MethodAnswer(200, 0x1F)),
        (f"{RES}200/?%24rid=1f", MethodAnswer(200, 0x1F)),
        (f"{RES}200/?$rid=%31f", MethodAnswer(200, 0x1F)),
        (f"{RES}200/?x=y&$rid=1f&z", MethodAnswer(200, 0x1F)),
        ("$IotHub/Methods/Res/200/?$rid=1f", MethodAnswer(200, 0x1F)),
        (f"{RES}+7/?$rid=1f", MethodAnswer(7, 0x1F)),
        (f"{RES}-2147483648/?$rid=1", MethodAnswer(-(2**31), 1)),
        (f"{RES}2147483647/?$rid=1", MethodAnswer(2**31 - 1, 1)),
        (f"{RES}2147483648/?$rid=1", MethodAnswer(None, 1)),
        (f"{RES}-2147483649/?$rid=1", MethodAnswer(None, 1)),
        (f"{RES}99999999999/?$rid=1", MethodAnswer(None, 1)),
        (f"{RES}OK/?$rid=1", MethodAnswer(None, 1)),
        (f"{RES}2.5/?$rid=1", MethodAnswer(None, 1)),
        (f"{RES}/?$rid=1", MethodAnswer(None, 1)),
        (f"{RES}\uff12\uff10\uff10/?$rid=1", MethodAnswer(None, 1)),
        (f"{RES}200/?$rid=", MethodAnswer(200, None)),
        (f"{RES}200/", MethodAnswer(200, None)),
        (f"{RES}200", MethodAnswer(200, None)),
        (f"{RES}200/?$rid=g", MethodAnswer(200, None)),
        (f"{RES}200/?$rid=-1", MethodAnswer(200, None)),
        (f"{RES}200/?$rid=123456789", MethodAnswer(200, None)),
        (f"{RES}200/?$rid=c0ffee00-0000-0000", MethodAnswer(200, None)),
        (RES, MethodAnswer(None, None)),
        ("$iothub/twin/GET/?$rid=0a-B", TwinGet("0a-B")),
        ("$iothub/twin/get/?$rid=x%20y", TwinGet("x%20y")),
        ("$iothub/twin/GET/", TwinGet("")),
        ("$iothub/twin/PATCH/properties/reported/?$rid=7&$version=3", TwinPatch("7")),
        ("devices/Dev/messages/events", Other.TELEMETRY),
        ("devices/Dev/messages/events/%24.ct=application%2Fjson&a", Other.TELEMETRY),
        ("devices/Other/messages/events/", Other.FOREIGN),
        ("devices/dev/messages/events/", Other.FOREIGN),
        ("devices/Dev/modules/Mod/messages/events/", Other.FOREIGN),
        ("devices/Dev/messages/devicebound/", Other.FOREIGN),
        ("$iothub/methods/POST/reboot/?$rid=1", Other.FOREIGN),
        ("$iothub/twin/PATCH/properties/desired/", Other.FOREIGN),
        ("hello", Other.FOREIGN),
        ("", Other.FOREIGN),
    ],
)
def test_what_a_topic_means(topic: str, meaning: Published) -> None:
    """[HUB-answer-status] A status is a 32-bit integer or nothing; an id that is no hexadecimal number is none."""
    assert parse_topic(topic, D) == meaning


def test_the_telemetry_of_a_module_is_its_own() -> None:
    assert parse_topic("devices/Dev/modules/Mod/messages/events/x", M) is Other.TELEMETRY
    assert parse_topic("devices/Dev/messages/events/", M) is Other.FOREIGN


@pytest.mark.parametrize("verb", ["GET", "PATCH/properties/reported"])
def test_the_id_of_a_twin_request_comes_back_as_it_stood(verb: str) -> None:
    """[MQTT-3.3.2-2] Decoded, it might hold what a topic must not; too long, it would not fit into one."""
    for rid in ("a%00b", "%23", "%2B", "x%20y", "x" * 256):
        meaning = parse_topic(f"$iothub/twin/{verb}/?$rid={rid}", D)
        assert isinstance(meaning, TwinGet | TwinPatch)
        assert meaning.rid == rid
    assert parse_topic(f"$iothub/twin/{verb}/?$rid={'x' * 257}", D) is Other.FOREIGN


STARTS = st.sampled_from(["", RES, f"{RES}200/?$rid=", "$iothub/twin/GET/", "$iothub/twin/PATCH/properties/reported/?"])


@given(STARTS, st.text())
def test_any_topic_means_something(start: str, rest: str) -> None:
    meaning = parse_topic(start + rest, D)
    if isinstance(meaning, MethodAnswer):
        assert meaning.status is None or -(2**31) <= meaning.status < 2**31
        assert meaning.rid is None or 0 <= meaning.rid < 16**8
    elif isinstance(meaning, TwinGet | TwinPatch):
        twin_response_topic(200, meaning.rid)
    else:
        assert isinstance(meaning, Other)
