"""A running hub: the domain between its listeners and its store; start, drain, stop."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network

import structlog

from methodhub.api.app import build_app
from methodhub.api.http import HttpServer
from methodhub.config import SOCKET_NAME, Settings
from methodhub.core.clock import Clock
from methodhub.core.jobs.scheduler import Scheduler
from methodhub.core.methods import CallLimits, Methods
from methodhub.core.ports import CloseReason
from methodhub.core.presence import WRITE_INTERVAL
from methodhub.device.installed import AMQP, MQTT, WITHOUT_AMQP, Factory, device_protocols
from methodhub.device.services import DeviceServices
from methodhub.net.listener import BindError, PreAuthenticationLimits
from methodhub.net.listeners import Listeners, bind_https
from methodhub.net.server_tls import ServerTls
from methodhub.process import ReadyFacts, StartError
from methodhub.server.background import Background, first_of
from methodhub.server.certificates import CERTIFICATE_CHECK_INTERVAL, ServerCertificates, ca_file
from methodhub.server.domain import Domain
from methodhub.server.jobs import build_scheduler
from methodhub.server.limits import KEY_CHECK_INTERVAL

log = structlog.get_logger()

RECORD_GRACE = 5.0
"""Seconds that outcomes of jobs may take to be written when the hub stops."""


class Hub(Domain):
    """One hub: everything between its listeners and its store."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        super().__init__(settings, clock)
        self._notes: list[str] = []
        limits = PreAuthenticationLimits(
            settings.pre_authentication_seconds,
            settings.pre_authentication_bytes,
            settings.pre_authentication_sockets,
        )
        self._listeners = Listeners(
            limits,
            self.deadlines,
            self.clock,
            settings.max_connections,
            [ip_network(network) for network in settings.proxy_networks or ()],
        )
        self._background = Background(self.clock, self.deadlines)
        self.scheduler: Scheduler | None = None

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
        self.scheduler = build_scheduler(self, self.methods)
        tls = await self._load_certificates()
        services = self.api_services(self.methods)
        app = build_app(services)
        protocols = device_protocols(self._device_services())
        await self._listen(tls, HttpServer(app, services, device_protocols=protocols), protocols)
        await self._listen_to_administrator(HttpServer(app, services, administrator=True))
        self._count_sockets()
        self._background.run_clock()
        self._background.every(WRITE_INTERVAL, self.presence.write)
        if self.bearer is not None:
            self._background.spawn(self.bearer.refresh())  # nobody waits for it: an issuer may be away
            self._background.every(KEY_CHECK_INTERVAL, self.bearer.refresh)
        # Only a database server can have other nodes on it: a file belongs to whoever has the data directory's lock.
        await self.scheduler.start(alone=settings.database_url is None)
        self.ready = True
        if settings.in_memory:
            log.warning(
                "in-memory hub: device sessions end with it; a device of the Python SDK does not subscribe again "
                "after it reconnects to a restarted hub, and must be restarted, too"
            )
        return self._ready_facts()

    async def _load_certificates(self) -> ServerTls | None:
        settings = self.settings
        if settings.plaintext:
            self._notes.append("plaintext: no TLS on any port. For measurements on this machine only.")
            return None
        self.certificates = ServerCertificates(
            settings, self.clock, self.authorities, self.identity_store, self._background
        )
        await self.certificates.load()
        self.bus.subscribe(self.certificates.expect)
        self._background.every(CERTIFICATE_CHECK_INTERVAL, self.certificates.renew)
        return self.certificates.tls

    def _device_services(self) -> DeviceServices:
        return DeviceServices(
            registry=self.registry,
            policies=self.policies,
            table=self.table,
            store=self.hub_store,
            deadlines=self.deadlines,
            clock=self.clock,
            metrics=self.metrics,
            rules=self.rules,
            authorities=self.authorities,
            bearer=self.bearer,
            throttles=self.throttles,
            twins=self.twins,
        )

    async def _listen(self, tls: ServerTls | None, https_server: HttpServer, protocols: dict[str, Factory]) -> None:
        settings, listeners = self.settings, self._listeners
        device_tls = tls.devices if tls is not None else None
        https = listeners.add("https", https_server.connection, tls.https if tls is not None else None)
        mqtt = listeners.add("mqtt", protocols[MQTT], device_tls)
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
        except BindError as error:
            raise StartError(str(error)) from error

    async def _listen_to_administrator(self, server: HttpServer) -> None:
        try:
            await self._listeners.add("administration", server.connection).bind_unix(
                self.settings.data_dir / SOCKET_NAME
            )
        except BindError as error:
            raise StartError(str(error)) from error

    def _ready_facts(self) -> ReadyFacts:
        settings = self.settings
        return ReadyFacts(
            settings.hostname[0],
            self.https_port or 0,
            self.mqtt_port or 0,
            self.amqp_port,
            settings.data_dir,
            settings.in_memory,
            ca_file(settings),
            tuple(self._notes),
        )

    def _count_sockets(self) -> None:
        gauges = self.metrics.gauges
        gauges["connected_targets"] = ("Devices and modules that are connected", lambda: len(self.table))
        gauges["open_calls"] = ("Method calls that wait for their end", lambda: len(self.methods.open))
        self._listeners.count(self.metrics)

    # --- stop ----------------------------------------------------------------------------------------------------

    async def stop(self, at_once: asyncio.Event | None = None) -> None:
        """[HUB-stop] Take no more calls; let delivered ones finish within the grace period; close devices, then all.
        `at_once`: set it to cut the grace period short."""
        self.ready = False
        self._listeners.stop_accepting()
        assert self.scheduler is not None
        self.scheduler.begin_stop()
        self.jobs.close()
        grace_over = asyncio.Event()
        self.deadlines.call_at(self.clock.monotonic() + self.settings.stop_grace, grace_over.set)
        await first_of(self.methods.stop(), grace_over.wait(), *([at_once.wait()] if at_once else []))
        self.table.close_all(CloseReason.STOPPING)
        store_is_away = asyncio.Event()
        self.deadlines.call_at(self.clock.monotonic() + RECORD_GRACE, store_is_away.set)
        await first_of(self.scheduler.stop(), store_is_away.wait(), *([at_once.wait()] if at_once else []))
        self._listeners.close_all()
        await first_of(self._listeners.wait_closed(), *([at_once.wait()] if at_once else []))
        await self.presence.write()
        await self.close()

    async def close(self) -> None:
        """Let go of everything at once."""
        self.ready = False
        self._listeners.stop_accepting()
        self._listeners.abort_all()
        self._background.stop()
        if self.scheduler is not None:
            self.scheduler.abort()
        await super().close()
