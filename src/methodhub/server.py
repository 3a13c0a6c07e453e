"""The composition root: build, start, drain, stop. The only file that knows every adapter and the settings."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import structlog
import uvloop
from starlette.types import ASGIApp

from methodhub import __version__
from methodhub.api.app import administrator_app, build_app
from methodhub.api.http import HttpServer
from methodhub.api.services import ApiServices, HttpLimits, HubFacts
from methodhub.bus.local import LocalBus
from methodhub.config import SOCKET_NAME, Settings
from methodhub.core.access import Policies, default_policies, is_still_valid
from methodhub.core.certificates.authorities import CertificateAuthorities
from methodhub.core.clock import Clock, SystemClock
from methodhub.core.connections import Attachment, ConnectionTable, DeviceLimits
from methodhub.core.deadlines import TICK, Deadlines
from methodhub.core.methods import CallLimits, Methods
from methodhub.core.ports import (
    AuthoritiesChanged,
    CertificateExpected,
    CloseReason,
    Event,
    HubStore,
    IdentityStore,
    StoreUnavailable,
    TargetRevoked,
)
from methodhub.core.presence import WRITE_INTERVAL, Presence
from methodhub.core.registry import Registry
from methodhub.device.installed import AMQP, MQTT, WITHOUT_AMQP, device_protocols
from methodhub.device.services import DeviceServices
from methodhub.iothub.rest import MethodRules
from methodhub.metrics import Metrics
from methodhub.net.certificates import (
    CertificateError,
    ServerCertificate,
    ensure_authority,
    ensure_server_certificate,
    load_operator_certificate,
)
from methodhub.net.chains import verify_chain
from methodhub.net.listener import BindError, PreAuthenticationLimits
from methodhub.net.listeners import Listeners, bind_https
from methodhub.net.server_tls import ServerTls
from methodhub.net.tls import TlsContextHolder
from methodhub.process import DataDirectory, ReadyFacts, StartError, calm_the_collector, raise_file_limit
from methodhub.store.database import Database, open_database
from methodhub.store.hub import SqlHubStore
from methodhub.store.identities import SqlIdentityStore
from methodhub.store.memory import MemoryHubStore, MemoryIdentityStore, MemoryTables
from methodhub.store.schema import StoreError

__all__ = ["DataDirectory", "Hub", "ReadyFacts", "StartError", "offline_api", "serve"]

log = structlog.get_logger()

DATABASE_NAME = "methodhub.db"
PAUSE = 1.0
"""Seconds without a turn of the clock after which the process was paused, or starved."""
CA_NAME = "ca.pem"
CERTIFICATE_CHECK_INTERVAL = 3600.0
"""Seconds between two looks at whether the server certificate must be renewed, or was replaced by its operator."""


class Hub:
    """One hub: everything between its listeners and its store."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self.settings = settings
        self.clock: Clock = clock or SystemClock()
        self.metrics = Metrics()
        self.deadlines = Deadlines(self.clock.monotonic())
        self.bus = LocalBus()
        self.policies = Policies(frozenset(settings.hostname))
        self._rules = MethodRules(
            response_timeout_min=settings.response_timeout_min,
            response_timeout_max=settings.response_timeout_max,
            response_timeout_default=settings.response_timeout_default,
            connect_timeout_max=settings.connect_timeout_max,
            connect_timeout_default=settings.connect_timeout_default,
            payload_limit=settings.payload_limit,
            paste_invalid_answers=settings.paste_invalid_answers,
        )
        self._ready = False
        self._notes: list[str] = []
        limits = PreAuthenticationLimits(
            settings.pre_authentication_seconds,
            settings.pre_authentication_bytes,
            settings.pre_authentication_sockets,
        )
        self._listeners = Listeners(limits, self.deadlines, self.clock, settings.max_connections)
        self._tls: ServerTls | None = None
        self._expectations = 0
        """How often an identity or a CA was told of that needs client certificates."""
        self._database: Database | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._last_turn = self.clock.monotonic()
        self._background: set[asyncio.Task[None]] = set()
        self.https_port: int | None = None
        self.mqtt_port: int | None = None
        self.amqp_port: int | None = None

    # --- build ---------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the store and put the domain on it. Raises StartError."""
        settings = self.settings
        self.identity_store, self.hub_store = await self._open_stores()
        policies = await self.hub_store.policies()
        if not policies:
            await self.hub_store.insert_policies(default_policies())
            policies = await self.hub_store.policies()
        self.policies.load(policies)
        self.table = ConnectionTable(
            self.bus,
            self.deadlines,
            self.clock,
            DeviceLimits(settings.device_open_calls, settings.device_unsent_bytes),
            self.metrics,
        )
        self.registry = Registry(self.identity_store, self.bus, self.clock, settings.modules_per_device)
        self.authorities = CertificateAuthorities(self.hub_store, self.bus, self.clock, verify_chain)
        await self.authorities.load()
        self.presence = Presence(self.table, self.identity_store, self.clock)
        self.table.on_change = self._connection_changed
        self.bus.subscribe(self._on_event)

    async def _open_stores(self) -> tuple[IdentityStore, HubStore]:
        if self.settings.in_memory:
            tables = MemoryTables()
            return MemoryIdentityStore(tables), MemoryHubStore(tables)
        path = self.settings.data_dir / DATABASE_NAME
        try:
            self._database = await open_database(path)
        except (StoreError, OSError) as error:
            raise StartError(f"The database {path} cannot be opened: {error}") from error
        return SqlIdentityStore(self._database), SqlHubStore(self._database)

    def _connection_changed(self, attachment: Attachment, connected: bool) -> None:
        self.presence.changed(attachment, connected)
        if not connected:
            self.registry.unpin(attachment.target)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, TargetRevoked):
            self._revoke(event)
        elif isinstance(event, AuthoritiesChanged):
            for attachment in self.table:
                if not self._is_still_valid(attachment):
                    self.table.close(attachment.target, CloseReason.CREDENTIALS_CHANGED)
        self._expect_certificates(event)

    def _revoke(self, event: TargetRevoked) -> None:
        """An identity was revoked: close what it holds, unless what let it in still does."""
        if event.reason is CloseReason.CREDENTIALS_CHANGED:
            attachment = self.table.get(event.target)
            if attachment is not None and self._is_still_valid(attachment):
                return
        self.table.close(event.target, event.reason)
        if event.reason is CloseReason.DELETED:
            self.presence.forget(event.target)

    def _is_still_valid(self, attachment: Attachment) -> bool:
        identity = self.registry.in_memory(attachment.target)
        return identity is not None and is_still_valid(
            attachment.credential, identity.authentication, self.policies, self.authorities
        )

    def api_services(self, methods: Methods | None) -> ApiServices:
        settings = self.settings
        return ApiServices(
            registry=self.registry,
            presence=self.presence,
            policies=self.policies,
            authorities=self.authorities,
            clock=self.clock,
            metrics=self.metrics,
            rules=self._rules,
            limits=HttpLimits(
                body=settings.http_body_limit,
                keep_alive=settings.http_keep_alive,
                request_seconds=settings.request_seconds,
            ),
            facts=lambda: HubFacts(
                __version__,
                settings.hostname,
                self.https_port,
                self.mqtt_port,
                self.amqp_port,
                str(ca_file(settings)),
            ),
            is_ready=lambda: self._ready,
            deadlines=self.deadlines,
            methods=methods,
        )

    # --- start ---------------------------------------------------------------------------------------------------

    async def start(self) -> ReadyFacts:
        """Open, listen everywhere, be ready. Raises StartError, after which nothing is left open."""
        try:
            return await self._start()
        except BaseException:
            await self.close()
            raise

    async def _start(self) -> ReadyFacts:
        settings = self.settings
        await self.open()
        await self.identity_store.disconnect_all(self.clock.wall())
        self.methods = Methods(
            self.registry, self.bus, self.deadlines, self.clock, CallLimits(settings.hub_open_calls), self.metrics
        )
        await self._load_certificate()
        services = self.api_services(self.methods)
        app = build_app(services)
        devices = DeviceServices(
            registry=self.registry,
            policies=self.policies,
            table=self.table,
            store=self.hub_store,
            deadlines=self.deadlines,
            clock=self.clock,
            metrics=self.metrics,
            rules=self._rules,
            authorities=self.authorities,
        )
        https_tls = self._tls.https if self._tls is not None else None
        device_tls = self._tls.devices if self._tls is not None else None
        listeners = self._listeners
        protocols = device_protocols(devices)
        https_server = HttpServer(app, services, device_protocols=protocols)
        https = listeners.add("https", https_server.connection, https_tls)
        mqtt = listeners.add("mqtt", protocols[MQTT], device_tls)
        admin = listeners.add("administration", HttpServer(app, services, administrator=True).connection)
        try:
            note = await bind_https(https, settings.bind, settings.https_port)
            self._notes += [note] if note else []
            self.https_port = https.addresses[0][1]
            await mqtt.bind_tcp(settings.bind, settings.mqtt_port)
            self.mqtt_port = mqtt.addresses[0][1]
            if AMQP in protocols:
                amqp = listeners.add("amqp", protocols[AMQP], device_tls)
                await amqp.bind_tcp(settings.bind, settings.amqp_port)
                self.amqp_port = amqp.addresses[0][1]
            else:
                self._notes.append(WITHOUT_AMQP)
            await admin.bind_unix(settings.data_dir / SOCKET_NAME)
        except BindError as error:
            raise StartError(str(error)) from error
        self._count_sockets()
        self._run_clock()
        self._every(WRITE_INTERVAL, self.presence.write)
        self._every(CERTIFICATE_CHECK_INTERVAL, self._renew_certificate)
        self._ready = True
        if settings.in_memory:
            log.warning(
                "in-memory hub: device sessions end with it; a device of the Python SDK does not subscribe again "
                "after it reconnects to a restarted hub, and must be restarted, too"
            )
        return self._ready_facts(https.addresses[0][1], mqtt.addresses[0][1])

    def _ready_facts(self, https_port: int, mqtt_port: int) -> ReadyFacts:
        settings = self.settings
        return ReadyFacts(
            settings.hostname[0],
            https_port,
            mqtt_port,
            self.amqp_port,
            settings.data_dir,
            settings.in_memory,
            ca_file(settings),
            tuple(self._notes),
        )

    async def _load_certificate(self) -> None:
        settings = self.settings
        if settings.plaintext:
            self._notes.append("plaintext: no TLS on any port. For measurements on this machine only.")
            return
        asks = settings.https_client_certificates == "on"
        if settings.https_client_certificates == "auto":
            asks = len(self.authorities) > 0 or await self.identity_store.expects_certificates()
        try:
            self._tls = ServerTls(self._read_certificate, https_asks=asks)
        except CertificateError as error:
            raise StartError(f"The server certificate cannot be used: {error}") from error

    def _read_certificate(self) -> ServerCertificate:
        settings = self.settings
        if settings.certificate is not None and settings.certificate_key is not None:
            return load_operator_certificate(settings.certificate, settings.certificate_key)
        now = self.clock.wall()
        authority = ensure_authority(settings.data_dir, now)
        return ensure_server_certificate(
            settings.data_dir, authority, settings.hostname, settings.certificate_key_type, now
        )

    async def _renew_certificate(self) -> None:
        if self._tls is not None:
            self._tls.renew()

    def _expect_certificates(self, event: Event) -> None:
        """[HUB-certificate-request] HTTPS asks for client certificates while some are of use: browsers prompt."""
        if self._tls is None or self.settings.https_client_certificates != "auto":
            return
        if isinstance(event, CertificateExpected) or len(self.authorities):
            self._expectations += 1
            self._tls.https.ask_for_certificates(True)
        elif self._tls.https.asks_for_certificates:
            self._spawn(self._stop_asking(self._tls.https, self._expectations))

    async def _stop_asking(self, https: TlsContextHolder, seen: int) -> None:
        """Unless an identity still needs it, or one came while the store was asked."""
        with suppress(StoreUnavailable):
            if not await self.identity_store.expects_certificates() and self._expectations == seen:
                https.ask_for_certificates(False)

    def _count_sockets(self) -> None:
        gauges = self.metrics.gauges
        gauges["connected_targets"] = ("Devices and modules that are connected", lambda: len(self.table))
        gauges["open_calls"] = ("Method calls that wait for their end", lambda: len(self.methods.open))
        self._listeners.count(self.metrics)

    # --- time ----------------------------------------------------------------------------------------------------

    def _run_clock(self) -> None:
        # First the next turn: a deadline that fails is the loop's to log, and must not stop the clock.
        self._tick = asyncio.get_running_loop().call_later(TICK / 2, self._run_clock)
        now = self.clock.monotonic()
        was_paused, self._last_turn = now - self._last_turn > PAUSE, now
        # [HUB-pause] After a pause of the process, what peers sent meanwhile is read before their time is up.
        if not was_paused:
            self.deadlines.expire(now)

    def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        async def once() -> None:
            try:
                await work()
            finally:
                self._every(seconds, work)

        self.deadlines.call_at(self.clock.monotonic() + seconds, lambda: self._spawn(once()))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # --- stop ----------------------------------------------------------------------------------------------------

    async def stop(self, at_once: asyncio.Event | None = None) -> None:
        """[HUB-stop] Take no more calls; let delivered ones finish within the grace period; close devices, then all.
        `at_once`: set it to cut the grace period short."""
        self._ready = False
        self._listeners.stop_accepting()
        grace_over = asyncio.Event()
        self.deadlines.call_at(self.clock.monotonic() + self.settings.stop_grace, grace_over.set)
        await first_of(self.methods.stop(), grace_over.wait(), *([at_once.wait()] if at_once else []))
        self.table.close_all(CloseReason.STOPPING)
        self._listeners.close_all()
        await first_of(self._listeners.wait_closed(), *([at_once.wait()] if at_once else []))
        await self.presence.write()
        await self.close()

    async def close(self) -> None:
        """Let go of everything at once."""
        self._ready = False
        self._listeners.stop_accepting()
        self._listeners.abort_all()
        if self._tick is not None:
            self._tick.cancel()
        for task in list(self._background):
            task.cancel()
        if self._database is not None:
            await self._database.close()
            self._database = None


async def first_of(*waits: Awaitable[Any]) -> None:
    """Return when one of them has; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def ca_file(settings: Settings) -> Path:
    """What SDKs must trust: the hub's own authority, or with an operator's certificate that file."""
    return settings.certificate or settings.data_dir / CA_NAME


def serve(settings: Settings, on_ready: Callable[[ReadyFacts], None]) -> int:
    """Run a hub until SIGTERM or SIGINT. Returns the exit code. Raises StartError."""
    raise_file_limit()
    directory = DataDirectory(settings.data_dir)
    try:
        return uvloop.run(_serve(settings, on_ready))
    finally:
        directory.release()


async def _serve(settings: Settings, on_ready: Callable[[ReadyFacts], None]) -> int:
    loop = asyncio.get_running_loop()
    stop, at_once = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (at_once if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    hub = Hub(settings)
    facts = await hub.start()
    calm_the_collector()
    on_ready(facts)
    sys.stdout.flush()
    await stop.wait()
    log.info("stopping", open_calls=len(hub.methods.open), connected=len(hub.table))
    await hub.stop(at_once)
    return 0


@asynccontextmanager
async def offline_api(data_dir: Path) -> AsyncIterator[ASGIApp]:
    """The administrator's routes on the data itself, where no hub runs. Raises StartError."""
    directory = DataDirectory(data_dir)
    settings = Settings(data_dir=data_dir)
    hub = Hub(settings)
    try:
        await hub.open()
        try:
            ensure_authority(data_dir, hub.clock.wall())
        except (CertificateError, OSError) as error:
            raise StartError(f"The authority cannot be used: {error}") from error
        yield administrator_app(build_app(hub.api_services(None)))
    finally:
        await hub.close()
        directory.release()
