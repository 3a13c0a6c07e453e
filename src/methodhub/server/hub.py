"""A running hub: the domain between its listeners and its store; start, drain, stop."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_network
from math import ceil
from secrets import token_bytes

import structlog

from methodhub.api.app import build_app
from methodhub.api.http import HttpServer
from methodhub.bus.nats import NatsBus
from methodhub.config import Settings
from methodhub.core.clock import Clock
from methodhub.core.connections import connection_closed
from methodhub.core.jobs.node import BEAT, Node
from methodhub.core.jobs.scheduler import Scheduler
from methodhub.core.methods import CallLimits, Methods
from methodhub.core.ports import Bus, CloseReason, StoreUnavailable
from methodhub.core.presence import WRITE_INTERVAL
from methodhub.core.throttles.throttles import SHARE_INTERVAL
from methodhub.device.installed import AMQP, MQTT, WITHOUT_AMQP, Factory, device_protocols
from methodhub.device.services import DeviceServices
from methodhub.net.listener import BindError, PreAuthenticationLimits
from methodhub.net.listeners import Listeners, bind_https
from methodhub.net.tls import ServerTls
from methodhub.process import ReadyFacts, StartError, Worker
from methodhub.server.background import first_of
from methodhub.server.certificates import CERTIFICATE_CHECK_INTERVAL, ServerCertificates, ca_file
from methodhub.server.cluster import CLUSTER_BEAT, nats_bus, start_bus
from methodhub.server.domain import Domain
from methodhub.server.jobs import build_scheduler
from methodhub.server.limits import KEY_CHECK_INTERVAL
from methodhub.server.truth import RECHECK_INTERVAL
from methodhub.server.workers import MetricsOfWorkers, socket_name
from methodhub.store.transfer.tables import BUS

log = structlog.get_logger()

CLOSED_AT_ONCE, CLOSE_INTERVAL = 100, 0.1
"""Devices that a node which leaves others behind closes at once, at least, and seconds until the next ones."""
SPREAD = 0.75
"""The part of the grace period in which all idle devices are closed."""

RECORD_GRACE = 5.0
"""Seconds that outcomes of jobs may take to be written when the hub stops."""


class Hub(Domain):
    """One hub: everything between its listeners and its store."""

    def __init__(self, settings: Settings, clock: Clock | None = None, worker: Worker | None = None) -> None:
        super().__init__(settings, clock)
        self._worker = worker
        self._bus_url = settings.nats_url or (worker.nats_url if worker is not None else None)
        self.is_shared = self._bus_url is not None
        self._nats: NatsBus | None = None
        self._is_enrolled = False
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
            shares_ports=worker is not None,
        )
        self.scheduler: Scheduler | None = None

    # --- start ---------------------------------------------------------------------------------------------------

    async def start(self) -> ReadyFacts:
        """Open, listen everywhere, be ready. Raises StartError, after which nothing is left open."""
        try:
            return await self._start()
        except BaseException:
            await self._retire()
            await self.close()
            raise

    async def _retire(self) -> None:
        """Nobody shall wait for a node that did not come to be."""
        if self._is_enrolled:
            with suppress(StoreUnavailable, TimeoutError):
                async with asyncio.timeout(RECORD_GRACE):
                    await self.job_store.retire(self.node.node_id)

    async def _start(self) -> ReadyFacts:
        settings = self.settings
        await self.open()
        if self._nats is not None:
            await start_bus(self._nats)
            if self.throttles is not None:
                await self.throttles.take_share()
        self.node.on_enrolled = self.presence.tell_again
        await self._disconnect_dead()
        self.methods = Methods(
            self.registry, self.bus, self.deadlines, self.clock, CallLimits(settings.hub_open_calls), self.metrics
        )
        self.scheduler = build_scheduler(self, self.methods, self.node)
        self.scheduler.on_buried = self._disconnect_dead
        tls = await self._load_certificates()
        services = self.api_services(self.methods)
        if self._worker is not None:
            of_all = MetricsOfWorkers(self._worker, settings, self.metrics)
            services = replace(services, metrics_of_workers=of_all.exposition)
        app = build_app(services)
        protocols = device_protocols(self._device_services())
        await self._listen(tls, HttpServer(app, services, device_protocols=protocols), protocols)
        await self._listen_to_administrator(HttpServer(app, services, administrator=True))
        self._count_sockets()
        self.background.run_clock()
        self.background.every(WRITE_INTERVAL, self.presence.write)
        if self.bearer is not None:
            self.background.spawn(self.bearer.refresh())  # nobody waits for it: an issuer may be away
            self.background.every(KEY_CHECK_INTERVAL, self.bearer.refresh)
        await self.scheduler.start()
        if self.is_shared:
            self.background.every(RECHECK_INTERVAL, self.truth.recheck)
            if tls is not None:
                self.background.every(RECHECK_INTERVAL, self.certificates.recheck)
            if self.throttles is not None:
                self.background.every(SHARE_INTERVAL, self.throttles.take_share)
        self.ready = True
        if settings.in_memory:
            log.warning(
                "in-memory hub: device sessions end with it; a device of the Python SDK does not subscribe again "
                "after it reconnects to a restarted hub, and must be restarted, too"
            )
        return self._ready_facts()

    async def open_bus(self) -> Bus:
        if self.is_shared:
            self.node = Node(self.job_store, self.clock, CLUSTER_BEAT, self.common_clock)
        else:
            self.node = Node(self.job_store, self.clock, BEAT)
        # Only a database server, or workers, can have other nodes on it: a file belongs to whoever holds its lock.
        await self.node.enroll(alone=self.settings.database_url is None and self._worker is None)
        self._is_enrolled = True
        if self._bus_url is None:
            return await super().open_bus()
        self._nats = nats_bus(
            self.settings,
            self._bus_url,
            self.node,
            self.hub_store,
            self.clock,
            self.deadlines,
            self.metrics,
            lambda: self.truth.missed(),  # noqa: PLW0108 - it is not there yet
            # Workers on a NATS of their own meet nobody else.
            "" if self.settings.nats_url is None else (await self.hub_store.secret(BUS, token_bytes(16))).hex(),
        )
        return self._nats

    def share(self) -> float:
        """[HUB-throttle-share] Each live node spends as much as any other."""
        return 1.0 if self._nats is None else 1.0 / (1 + len(self._nats.roster.live()))

    def places(self, whole: int) -> int:
        """[HUB-job-places]"""
        if self._nats is None:
            return whole
        nodes = sorted({*self._nats.roster.live(), self._nats.node})
        part, left = divmod(whole, len(nodes))
        return part + (nodes.index(self._nats.node) < left)

    def node_id(self) -> str:
        return self.node.node_id

    async def _disconnect_dead(self) -> None:
        await self.identity_store.disconnect_dead(self.clock.wall())

    async def _load_certificates(self) -> ServerTls | None:
        settings = self.settings
        if settings.plaintext:
            self._notes.append("plaintext: no TLS on any port. For measurements on this machine only.")
            return None
        self.certificates = ServerCertificates(
            settings, self.clock, self.authorities, self.identity_store, self.hub_store, self.background
        )
        note = await self.certificates.load()
        self._notes += [note] if note else []
        self.bus.subscribe(self.certificates.expect)
        self.background.every(CERTIFICATE_CHECK_INTERVAL, self.certificates.renew)
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
            next_generation=self.hub_store.next_generation if self.is_shared else None,
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
                self.settings.data_dir / socket_name(self._worker)
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
        ended = asyncio.gather(self.methods.stop(), self._close_devices())
        await first_of(ended, grace_over.wait(), *([at_once.wait()] if at_once else []))
        self.table.close_all(CloseReason.STOPPING)
        for call in list(self.methods.open):  # those that other nodes hold
            call.finish(connection_closed())
        store_is_away = asyncio.Event()
        self.deadlines.call_at(self.clock.monotonic() + RECORD_GRACE, store_is_away.set)
        await first_of(self.scheduler.stop(), store_is_away.wait(), *([at_once.wait()] if at_once else []))
        self._listeners.close_all()
        await first_of(self._listeners.wait_closed(), *([at_once.wait()] if at_once else []))
        await self.presence.write()
        await self.close()

    async def _close_devices(self) -> None:
        """[HUB-drain] Where other nodes take the devices, one after another, those without open calls first: all at
        once they would come back as a storm."""
        rounds = max(1.0, SPREAD * self.settings.stop_grace / CLOSE_INTERVAL)
        at_once = max(CLOSED_AT_ONCE, ceil(len(self.table) / rounds))
        while self.is_shared and len(self.table):
            idle = [each for each in self.table if not len(each.pending)]
            for attachment in idle[:at_once]:
                self.table.close(attachment.target, CloseReason.STOPPING)
            closed = asyncio.Event()
            self.deadlines.call_at(self.clock.monotonic() + CLOSE_INTERVAL, closed.set)
            await closed.wait()

    async def close(self) -> None:
        """Let go of everything at once."""
        self.ready = False
        self._listeners.stop_accepting()
        self._listeners.abort_all()
        self.background.stop()
        if self._nats is not None:
            nats, self._nats = self._nats, None
            await nats.stop()
        if self.scheduler is not None:
            self.scheduler.abort()
        await super().close()
