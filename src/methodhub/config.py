"""The one table of settings: defaults < TOML file < environment < flags, checked, then frozen.

Knows no room that uses a value; only the composition root and the command see this table.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

PREFIX = "METHODHUB_"
CONFIG_VARIABLE = PREFIX + "CONFIG"
SOCKET_NAME = "methodhub.sock"
SOCKET_PATH_LIMIT = 103 if sys.platform == "darwin" else 107
"""Bytes that the operating system takes as the path of a UNIX socket."""

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_NAME_RULE = "DNS names or IP addresses, without scheme, port or brackets"


class ConfigError(Exception):
    """Settings that cannot be used. `problems` holds one complete line for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def default_data_dir() -> Path:
    """One directory per user: below $XDG_DATA_HOME where that is an absolute path."""
    base = os.environ.get("XDG_DATA_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "share") / "methodhub"


def _split_names(value: object) -> object:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _check_name(name: str) -> str:
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        lower = name.lower()
        labels = lower.split(".")
        if len(lower) > 253 or labels[-1].isdigit() or not all(map(_LABEL.fullmatch, labels)):
            raise ValueError(f"{name!r} is no name; allowed: {_NAME_RULE}") from None
        return lower
    if address.is_unspecified:
        raise ValueError(f"{name!r} is no address that a peer can dial; it may be a value of bind")
    return str(address)


def _check_names(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        raise ValueError(f"must hold at least one name; allowed: {_NAME_RULE}")
    return tuple(dict.fromkeys(_check_name(name) for name in names))


def _check_networks(networks: tuple[str, ...] | None) -> tuple[str, ...] | None:
    return networks and tuple(str(ipaddress.ip_network(network, strict=False)) for network in networks)


def _check_bind(value: str) -> str:
    return "localhost" if value.lower() == "localhost" else str(ipaddress.ip_address(value))


def _whole_path(path: Path) -> Path:
    return path.expanduser().absolute()


def _check_data_dir(path: Path) -> Path:
    path = _whole_path(path)
    if len(os.fsencode(path / SOCKET_NAME)) > SOCKET_PATH_LIMIT:
        longest = SOCKET_PATH_LIMIT - len(SOCKET_NAME) - 1
        raise ValueError(f"must be at most {longest} bytes long, for the UNIX socket in it to have a legal path")
    return path


def _setting(default: Any, allowed: str, meaning: str, **limits: Any) -> Any:
    return Field(default, description=meaning, json_schema_extra={"allowed": allowed}, **limits)


def _whole(default: int | None, low: int, high: int, unit: str, meaning: str) -> Any:
    """A whole number from `low` to `high`, in `unit`."""
    return _setting(default, f"{low} to {high} {unit}".strip(), meaning, ge=low, le=high)


OwnPath = Annotated[Path, AfterValidator(_whole_path)]


class Settings(BaseSettings):
    """Every setting of the hub. Built by `load`; a value object everywhere else."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=PREFIX, env_ignore_empty=True, enable_decoding=False
    )

    data_dir: Annotated[Path, AfterValidator(_check_data_dir)] = Field(
        default_factory=default_data_dir,
        description="Directory of everything the hub keeps: database, keys, certificates, socket. Only its owner may "
        "enter it.",
        json_schema_extra={
            "allowed": "a path",
            "default": "$XDG_DATA_HOME/methodhub, else ~/.local/share/methodhub",
        },
    )
    in_memory: bool = _setting(
        False,
        "true or false",
        "Keep identities, keys and sessions in memory only; they are gone when the hub ends. Devices of the Python SDK "
        "then get no calls after a restart of the hub until they are restarted too.",
    )
    hostname: Annotated[tuple[str, ...], BeforeValidator(_split_names), AfterValidator(_check_names)] = _setting(
        ("127.0.0.1", "localhost"),
        _NAME_RULE,
        "Names and addresses that the hub answers to and that its certificate carries. The first stands in connection "
        "strings. Give all of them: they replace the defaults. Text holds several with commas between.",
    )
    bind: Annotated[str, AfterValidator(_check_bind)] = _setting(
        "127.0.0.1",
        "an IP address of this machine, 0.0.0.0 or :: for all of them, or localhost",
        "Address that all listeners accept connections on.",
    )
    https_port: int | None = _whole(
        None,
        0,
        65535,
        "",
        "Port for back ends. Unset: 443 where that may be bound, else 8443. 0 takes any free port.",
    )
    mqtt_port: int = _whole(
        8883, 0, 65535, "", "Port for devices that speak MQTT over TLS. 0 takes any free port; SDKs always dial 8883."
    )
    amqp_port: int = _whole(
        5671,
        0,
        65535,
        "",
        "Port for devices that speak AMQP 1.0 over TLS. 0 takes any free port; SDKs always dial 5671.",
    )
    certificate: OwnPath | None = _setting(
        None,
        "a path",
        "PEM file with your own server certificate, followed by its intermediates. Unset: the hub makes one, and a CA.",
    )
    certificate_key: OwnPath | None = _setting(
        None, "a path", "PEM file with the private key of certificate, without a pass phrase."
    )
    certificate_key_type: Literal["p256", "rsa"] = _setting(
        "p256", "p256 or rsa", "Key of the certificate that the hub makes; rsa is for old TLS stacks."
    )
    https_client_certificates: Literal["auto", "on", "off"] = _setting(
        "auto",
        "auto, on or off",
        "Whether the HTTPS port asks for a client certificate, which devices over WebSocket need for X.509 and at "
        "which browsers prompt. auto: while an X.509 identity or a CA certificate is registered. Devices' own ports "
        "always ask.",
    )
    response_timeout_min: int = _whole(
        5, 1, 3600, "seconds", "Smallest responseTimeoutInSeconds that a call may ask for."
    )
    response_timeout_max: int = _whole(
        300, 1, 3600, "seconds", "Largest responseTimeoutInSeconds that a call may ask for."
    )
    response_timeout_default: int = _whole(
        30, 1, 3600, "seconds", "responseTimeoutInSeconds of a call that gives none."
    )
    connect_timeout_max: int = _whole(
        300, 0, 3600, "seconds", "Largest connectTimeoutInSeconds that a call may ask for; the smallest is 0."
    )
    connect_timeout_default: int = _whole(
        0, 0, 3600, "seconds", "connectTimeoutInSeconds of a call that gives none. 0: the device must be there now."
    )
    payload_limit: int = _whole(
        131_072, 1, 253_952, "bytes", "Largest payload of a request, and of an answer, each measured as JSON text."
    )
    paste_invalid_answers: bool = _setting(
        False,
        "true or false",
        "Put an answer that is not JSON into the response byte for byte, as the cloud does, instead of answering 502.",
    )
    device_open_calls: int = _whole(
        1000, 1, 1_000_000, "calls", "Unanswered calls of one device or module; a further one is refused with 403800."
    )
    device_unsent_bytes: int = _whole(
        16 * 1024 * 1024,
        262_144,
        1024 * 1024 * 1024,
        "bytes",
        "Bytes that wait for a device which does not read; a further call is refused with 403800.",
    )
    hub_open_calls: int = _whole(
        100_000, 1, 10_000_000, "calls", "Open calls of the whole hub; a further one is refused with 429001."
    )
    modules_per_device: int = _whole(50, 1, 10_000, "modules", "Modules that one device may have.")
    http_body_limit: int = _whole(
        262_144, 1024, 16 * 1024 * 1024, "bytes", "Largest body of an HTTP request, also after it is unpacked."
    )
    http_keep_alive: int = _whole(
        120, 1, 3600, "seconds", "Time that an idle HTTP connection stays open after an answer."
    )
    request_seconds: int = _whole(
        30, 1, 3600, "seconds", "Time that a back end has, once its headers are accepted, to send the whole request."
    )
    pre_authentication_seconds: int = _whole(
        30, 1, 300, "seconds", "Time from accepting a socket until its peer has authenticated; then it is closed."
    )
    pre_authentication_bytes: int = _whole(
        65_536, 1024, 1024 * 1024, "bytes", "Bytes that a peer may send before it has authenticated."
    )
    pre_authentication_sockets: int = _whole(
        2000, 1, 100_000, "sockets", "Sockets of one listener whose peers have not authenticated yet."
    )
    proxy_networks: Annotated[
        tuple[str, ...] | None, BeforeValidator(_split_names), AfterValidator(_check_networks)
    ] = _setting(
        None,
        "addresses or networks, such as 10.0.0.0/24",
        "Load balancers that put a PROXY header (version 2) in front of each TCP connection, which tells the address "
        "of the peer. From these addresses the header is demanded; from others nothing is read as one. Text holds "
        "several with commas between.",
    )
    max_connections: int | None = _whole(
        None,
        1,
        10_000_000,
        "sockets",
        "Open sockets of one listener. Unset: as many as the limit of open files allows.",
    )
    stop_grace: int = _whole(
        10, 0, 3600, "seconds", "Time that calls which a device has received may still finish in after SIGTERM."
    )
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "info", "debug, info, warning or error", "Least severity that is logged."
    )
    log_format: Literal["console", "json"] = _setting(
        "console", "console or json", "How log lines on stderr look: for people, or one JSON object per line."
    )
    plaintext: bool = _setting(
        False,
        "true or false; true only with a loopback address as bind",
        "Serve both listeners without TLS. For measurements; no SDK connects to it.",
    )

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_others: Any, **_more: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """`load` lays the sources over each other itself, so that it can say where a bad value came from."""
        return (init_settings,)

    @model_validator(mode="after")
    def _check_together(self) -> Settings:
        problems = list(_contradictions(self))
        if problems:
            raise ValueError("\n".join(problems))
        return self


def _contradictions(settings: Settings) -> Iterator[str]:
    """One line for each set of values that are fine alone and not together."""
    low, middle, high = (
        settings.response_timeout_min,
        settings.response_timeout_default,
        settings.response_timeout_max,
    )
    if not low <= middle <= high:
        yield (
            f"response_timeout_min <= response_timeout_default <= response_timeout_max must hold, "
            f"but they are {low}, {middle} and {high}"
        )
    if settings.connect_timeout_default > settings.connect_timeout_max:
        yield (
            f"connect_timeout_default = {settings.connect_timeout_default} must not exceed "
            f"connect_timeout_max = {settings.connect_timeout_max}"
        )
    if settings.payload_limit >= settings.http_body_limit:
        yield (
            f"http_body_limit = {settings.http_body_limit} must exceed payload_limit = {settings.payload_limit}, "
            "since a body holds a payload and more"
        )
    if (settings.certificate is None) != (settings.certificate_key is None):
        yield "certificate and certificate_key belong together: give both, or neither"
    ports = {"https_port": settings.https_port, "mqtt_port": settings.mqtt_port, "amqp_port": settings.amqp_port}
    for (one, port), (other, same) in combinations(ports.items(), 2):
        if port == same != 0:
            yield f"{one} and {other} are both {port}; they must differ"
    if settings.plaintext and not (settings.bind == "localhost" or ipaddress.ip_address(settings.bind).is_loopback):
        yield f"plaintext needs a loopback address as bind, such as 127.0.0.1; bind is {settings.bind}"


def allowed(name: str) -> str:
    """What a setting may be, in words, with its unit."""
    return str(_extra(name)["allowed"])


def default_text(name: str) -> str:
    """The default of a setting as one would write it; empty where it is unset."""
    if "default" in _extra(name):
        return str(_extra(name)["default"])
    value = Settings.model_fields[name].default
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(value)
    return "" if value is None else str(value)


def _extra(name: str) -> dict[str, Any]:
    extra = Settings.model_fields[name].json_schema_extra
    assert isinstance(extra, dict)
    return extra


def load(
    flags: Mapping[str, object] | None = None,
    *,
    config: Path | None = None,
    assignments: Sequence[str] = (),
) -> Settings:
    """The settings from every source. `flags` maps names to values, `None` where a flag was not given;
    `assignments` are texts `name=value` (`--set`); `config` is the TOML file, else METHODHUB_CONFIG names it.

    Raises ConfigError with every problem, not only the first.
    """
    problems: list[str] = []
    path = config or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    layers = (
        (lambda name: str(path), _from_file(path, problems)),
        (lambda name: PREFIX + name.upper(), _from_environment(problems)),
        (lambda name: "--set", _from_assignments(assignments, problems)),
        (_flag, {name: value for name, value in (flags or {}).items() if value is not None}),
    )
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, layer in layers:
        values |= layer
        origins |= {name: origin(name) for name in layer}
    try:
        settings = Settings(**values)
    except ValidationError as error:
        problems += _explain(error, origins)
        raise ConfigError(problems) from None
    if problems:
        raise ConfigError(problems)
    return settings


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _unknown(name: str, where: str, prefix: str = "") -> str:
    """The line for a name that no setting has, with the one that was probably meant."""
    plain = name[len(prefix) :].lower().replace("-", "_")
    near = difflib.get_close_matches(plain, list(Settings.model_fields), n=1)
    hint = f"; did you mean {prefix}{near[0].upper() if prefix else near[0]}?" if near else ""
    return f"{where}: there is no setting {name!r}{hint}"


def _from_file(path: Path | None, problems: list[str]) -> dict[str, object]:
    if path is None:
        return {}
    path = _whole_path(path)
    try:
        if not path.is_file():
            raise FileNotFoundError(2, "there is no such file")
        found: dict[str, object] = TomlConfigSettingsSource(Settings, path).toml_data
    except OSError as error:
        problems.append(f"{path}: cannot be read: {error.strerror}")
        return {}
    except ValueError as error:
        problems.append(f"{path}: is not valid TOML: {error}")
        return {}
    known = Settings.model_fields
    problems += [_unknown(name, str(path)) for name in found if name not in known]
    return {name: value for name, value in found.items() if name in known}


def _from_environment(problems: list[str]) -> dict[str, object]:
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    for name in os.environ:
        if name.upper().startswith(PREFIX) and name.upper() not in (*known, CONFIG_VARIABLE):
            problems.append(_unknown(name, "environment", PREFIX))
    return dict(EnvSettingsSource(Settings)())


def _from_assignments(assignments: Sequence[str], problems: list[str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        name = name.strip()
        field = name.replace("-", "_")
        if not equals:
            problems.append(f"--set {text}: must read name=value")
        elif field not in Settings.model_fields:
            problems.append(_unknown(name, "--set"))
        else:
            found[field] = value.strip()
    return found


def _explain(error: ValidationError, origins: Mapping[str, str]) -> Iterator[str]:
    """One line per problem: setting, value, where it came from, what is allowed."""
    for problem in error.errors(include_url=False):
        own = str(problem["ctx"]["error"]) if problem["type"] == "value_error" else ""
        if not problem["loc"]:
            yield from own.splitlines()
            continue
        name = str(problem["loc"][0])
        value = problem["input"]
        shown = str(value) if isinstance(value, str | int | float | Path) else repr(value)
        rule = own if own and name in ("data_dir", "hostname") else f"must be {allowed(name)}"
        yield f"{name} = {shown} ({origins.get(name, 'default')}): {rule}"
