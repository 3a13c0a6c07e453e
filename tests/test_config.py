"""Settings: which source wins, what is refused, and how the refusal reads."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from methodhub.config import SOCKET_NAME, ConfigError, Settings, allowed, default_text, load
from methodhub.core.access import Action


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("METHODHUB_"):
            monkeypatch.delenv(name)


def problems_of(**flags: object) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(flags)
    return caught.value.problems


def test_the_defaults_are_legal_and_frozen() -> None:
    settings = load()
    assert settings.hostname == ("127.0.0.1", "localhost")
    assert (settings.https_port, settings.mqtt_port, settings.bind) == (None, 8883, "127.0.0.1")
    assert (settings.response_timeout_min, settings.response_timeout_max) == (5, 300)
    assert settings.payload_limit == 131_072
    with pytest.raises(ValidationError):
        settings.mqtt_port = 1


def test_each_source_wins_over_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "hub.toml"
    file.write_text("stop_grace = 1\nhttp_keep_alive = 1\nmqtt_port = 1\nhttps_port = 2\n")
    monkeypatch.setenv("METHODHUB_HTTP_KEEP_ALIVE", "2")
    monkeypatch.setenv("METHODHUB_MQTT_PORT", "3")
    settings = load({"mqtt_port": 4, "https_port": None}, config=file, assignments=["https_port=5"])
    assert settings.stop_grace == 1
    assert settings.http_keep_alive == 2
    assert settings.mqtt_port == 4
    assert settings.https_port == 5
    assert settings.request_seconds == 30


def test_the_file_may_be_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "hub.toml"
    file.write_text('hostname = ["A.example", "10.0.0.1"]\nin_memory = true\n')
    monkeypatch.setenv("METHODHUB_CONFIG", str(file))
    assert load().hostname == ("a.example", "10.0.0.1")
    assert load().in_memory is True


def test_an_empty_variable_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METHODHUB_MQTT_PORT", "")
    monkeypatch.setenv("METHODHUB_CONFIG", "")
    assert load().mqtt_port == 8883


def test_values_built_in_code_ignore_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METHODHUB_MQTT_PORT", "1")
    assert Settings().mqtt_port == 8883


def test_the_directory_is_one_per_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/u")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert load().data_dir == Path("/home/u") / ".local/share/methodhub"
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert load().data_dir == Path("/data/methodhub")
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert load().data_dir == Path("/home/u") / ".local/share/methodhub"
    assert load({"data_dir": "~/hub"}).data_dir == Path("/home/u") / "hub"
    monkeypatch.chdir("/")
    assert load({"data_dir": Path("hub"), "certificate": "c", "certificate_key": "k"}).certificate == Path("/c")
    assert load({"data_dir": Path("hub")}).data_dir == Path("/hub")


def test_a_directory_too_deep_for_its_socket_is_refused_early() -> None:
    fits = "/" + "x" * (107 - len("//" + SOCKET_NAME) - 4)
    assert load({"data_dir": fits}).data_dir == Path(fits)
    (problem,) = problems_of(data_dir="/" + "x" * 100)
    assert problem.startswith("data_dir = /xxx")
    assert "bytes" in problem


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("Hub.Example", ("hub.example",)),
        ("a.example, b.example", ("a.example", "b.example")),
        (["a", "A", "::1", "0:0::1"], ("a", "::1")),
    ],
)
def test_names_are_kept_in_one_spelling(given: object, kept: tuple[str, ...]) -> None:
    assert load({"hostname": given}).hostname == kept


@pytest.mark.parametrize(
    "name",
    [
        "https://hub.example",
        "hub.example:443",
        "hub_1",
        "-a",
        "a..b",
        "a.",
        "",
        "[::1]",
        "256.1.1.1",
        "10.0.1",
        "0.0.0.0",
        "::",
        "a" * 64,
        ".".join(["a" * 63] * 4),
        "hüb",
        "a b",
    ],
)
def test_what_is_no_name_is_refused(name: str) -> None:
    (problem,) = problems_of(hostname=["ok.example", name])
    assert problem.startswith("hostname = ")
    assert "(--hostname)" in problem
    assert repr(name) in problem


def test_at_least_one_name() -> None:
    assert "at least one" in problems_of(hostname=[])[0]


@pytest.mark.parametrize(("given", "kept"), [("0.0.0.0", "0.0.0.0"), ("LOCALHOST", "localhost"), ("0::1", "::1")])
def test_bind_takes_addresses(given: str, kept: str) -> None:
    assert load({"bind": given}).bind == kept


def test_a_problem_names_setting_value_origin_and_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "hub.toml"
    file.write_text('stop_grace = "soon"\n')
    monkeypatch.setenv("METHODHUB_MQTT_PORT", "70000")
    with pytest.raises(ConfigError) as caught:
        load({"bind": "example.com", "in_memory": None}, config=file, assignments=["log-level=loud"])
    assert set(caught.value.problems) == {
        f"stop_grace = soon ({file}): must be 0 to 3600 seconds",
        "mqtt_port = 70000 (METHODHUB_MQTT_PORT): must be 0 to 65535",
        f"bind = example.com (--bind): must be {allowed('bind')}",
        "log_level = loud (--set): must be debug, info, warning or error",
    }


def test_unknown_names_are_refused_everywhere_with_the_nearest_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "hub.toml"
    file.write_text("https-port = 443\n[server]\nx = 1\n")
    monkeypatch.setenv("METHODHUB_HOSTNAMES", "a")
    monkeypatch.setenv("METHODHUB_XYZZY", "a")
    with pytest.raises(ConfigError) as caught:
        load(config=file, assignments=["payload_limits=1", "mqtt_port"])
    assert set(caught.value.problems) == {
        f"{file}: there is no setting 'https-port'; did you mean https_port?",
        f"{file}: there is no setting 'server'",
        "environment: there is no setting 'METHODHUB_HOSTNAMES'; did you mean METHODHUB_HOSTNAME?",
        "environment: there is no setting 'METHODHUB_XYZZY'",
        "--set: there is no setting 'payload_limits'; did you mean payload_limit?",
        "--set mqtt_port: must read name=value",
    }


@pytest.mark.parametrize(("content", "words"), [(b"a = ", "TOML"), (b"a = '\xff'", "TOML"), (None, "no such file")])
def test_a_file_that_cannot_be_used(tmp_path: Path, content: bytes | None, words: str) -> None:
    file = tmp_path / "hub.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(config=file)
    assert str(file) in caught.value.problems[0]
    assert words in caught.value.problems[0]


CONTRADICTIONS: list[tuple[dict[str, object], str]] = [
    ({"response_timeout_min": 31}, "response_timeout_min"),
    ({"response_timeout_max": 29}, "response_timeout_max"),
    ({"connect_timeout_default": 301}, "connect_timeout_max"),
    ({"http_body_limit": 131_072}, "http_body_limit"),
    ({"certificate": "/c.pem"}, "certificate_key"),
    ({"certificate_key": "/c.pem"}, "certificate"),
    ({"https_port": 8883}, "mqtt_port"),
    ({"plaintext": True, "bind": "0.0.0.0"}, "plaintext"),
]


@pytest.mark.parametrize(("flags", "word"), CONTRADICTIONS)
def test_values_that_do_not_go_together(flags: dict[str, object], word: str) -> None:
    (problem,) = problems_of(**flags)
    assert word in problem


def test_every_contradiction_is_told_at_once() -> None:
    assert len(problems_of(connect_timeout_default=301, certificate="/c.pem")) == 2


@pytest.mark.parametrize("bind", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_plaintext_on_loopback_and_free_ports_are_fine(bind: str) -> None:
    assert load({"plaintext": True, "bind": bind, "https_port": 0, "mqtt_port": 0}).plaintext is True


NUMBERS = [name for name, field in Settings.model_fields.items() if field.annotation in (int, int | None)]


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_has_a_range_that_its_text_tells(name: str) -> None:
    low, _, high = allowed(name).split()[:3]
    for value in (int(low) - 1, int(high) + 1):
        with pytest.raises(ValidationError, match=name):
            Settings(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_described(name: str) -> None:
    description = Settings.model_fields[name].description
    assert description is not None
    assert description.endswith(".")
    assert allowed(name)
    value = Settings.model_fields[name].default
    assert default_text(name) or value is None


@given(st.text(max_size=300))
def test_any_text_as_a_name_is_kept_or_refused_with_one_line(name: str) -> None:
    try:
        kept = load({"hostname": [name]}).hostname
    except ConfigError as error:
        assert error.problems
    else:
        assert load({"hostname": list(kept)}).hostname == kept


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://hub:s3cret@localhost/hub",
        "postgres://hub:s3cret@127.0.0.1:5433/hub?sslmode=disable",
        "postgresql://hub:s3cret@[::1]:5432/hub",
        "postgresql://hub@/hub?host=%2Frun%2Fpostgresql",
        "postgresql://hub:s3cret@%2Frun%2Fpostgresql/hub",
        "postgresql://hub:s3cret@db.example/hub?sslmode=verify-full&sslrootcert=/ca.pem",
        "postgresql://hub:s3cret@one.example,two.example:5433/hub?sslmode=require",
    ],
)
def test_a_database_here_or_over_tls_is_taken(url: str) -> None:
    assert load({"database_url": url}).database_url == url


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("postgresql://hub:s3cret@db.example/hub", "without TLS"),
        ("postgresql://hub:s3cret@db.example/hub?sslmode=prefer", "without TLS"),
        ("postgresql://hub:s3cret@db.example/hub?sslmode=require&sslmode=disable", "without TLS"),
        ("postgresql://hub:s3cret@localhost,192.0.2.7/hub", "without TLS"),
        ("postgresql://hub:s3cret@localhost/hub?host=db.example", "without TLS"),
        ("postgresql://hub:s3cret@127.0.0.1.example/hub", "without TLS"),
        ("mysql://hub:s3cret@localhost/hub", "must read postgresql://"),
        ("postgresql:///hub?password=s3cret", "must name its host"),
        ("postgresql://hub:s3cret@localhost", "must name the database"),
        ("postgresql://hub:s3cret@[localhost/hub", "is no URL"),
    ],
)
def test_another_database_is_refused_without_a_word_of_its_password(url: str, complaint: str) -> None:
    """[HUB-no-keys]"""
    with pytest.raises(ConfigError) as caught:
        load({"database_url": url})
    assert complaint in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_database_in_the_open_is_taken_when_it_is_said_so() -> None:
    url = "postgresql://hub:s3cret@db.example/hub"
    assert load({"database_url": url, "database_plaintext": True}).database_url == url


def test_a_hub_in_memory_has_no_other_database() -> None:
    with pytest.raises(ConfigError, match="exclude each other"):
        load({"database_url": "postgresql://localhost/hub", "in_memory": True})


@pytest.mark.parametrize(
    ("assignment", "problem"),
    [
        ("bearer_issuer=http://login.test", "no https address"),
        ("bearer_jwks_url=https://user@login.test/keys", "no https address"),
        ("bearer_algorithms=RS256,HS256", "HS256 is not among"),
        ("bearer_grants=op=devices/reed", "'devices/reed' names no data action"),
        ("bearer_grants=devices/read", "must read role=action,action;role=action"),
        ('bearer_issuers=[{"issuer":"https://a.test","more":1}]', "bearer_issuers.0.more = 1"),
        ('bearer_issuers=[{"issuer":"https://a.test"},{"issuer":"https://a.test"}]', "name an issuer twice"),
        ("units=0", "1 to 200 units"),
        ("throttle=S4", "off, S1, S2 or S3"),
    ],
)
def test_whom_to_believe_and_how_much_to_let_pass(assignment: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(problem)):
        load(assignments=[assignment])


def test_issuers_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "hub.toml"
    file.write_text(
        'bearer_issuer = "https://one.test"\n[bearer_grants]\n"an operator" = ["twins/*", "jobs/read"]\n'
        '[[bearer_issuers]]\nissuer = "https://two.test"\nclaims = ["groups"]\ngrants = { all = "*" }\n'
    )
    found = load(config=file)
    assert found.bearer_grants == {"an operator": frozenset({Action.TWINS_READ, Action.TWINS_WRITE, Action.JOBS_READ})}
    table = found.bearer_issuers[0]
    assert (table.issuer, table.claims, table.audience) == ("https://two.test", ("groups",), None)
    assert table.grants == {"all": frozenset(Action)}
