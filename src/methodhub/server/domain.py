"""The domain on its store: everything of a hub but its listeners, for a hub that runs and for its data offline."""

from __future__ import annotations

import secrets

from methodhub import __version__
from methodhub.api.services import ApiServices, HttpLimits, HubFacts
from methodhub.bus.local import LocalBus
from methodhub.config import Settings
from methodhub.core.access import Policies, default_policies
from methodhub.core.certificates.authorities import CertificateAuthorities
from methodhub.core.clock import Clock, CommonClock, SystemClock
from methodhub.core.connections import Attachment, ConnectionTable, DeviceLimits
from methodhub.core.deadlines import Deadlines
from methodhub.core.jobs.jobs import Jobs
from methodhub.core.methods import Methods
from methodhub.core.policies import PolicyChanges
from methodhub.core.ports import Bus, TargetAttached
from methodhub.core.presence import Presence
from methodhub.core.query.answers import Answers
from methodhub.core.query.continuation import Continuations
from methodhub.core.registry import Registry
from methodhub.core.registry.bulk import Bulk
from methodhub.core.twins.pushes import DesiredPushes
from methodhub.core.twins.twins import Twins
from methodhub.iothub.rest import MethodRules
from methodhub.metrics import Metrics
from methodhub.net.chains import verify_chain
from methodhub.process import StartError
from methodhub.server.background import Background
from methodhub.server.certificates import ca_file
from methodhub.server.limits import bearer_tokens, job_limits, throttles
from methodhub.server.truth import Truth
from methodhub.store.database import Database, open_database
from methodhub.store.hub import SqlHubStore
from methodhub.store.identities import SqlIdentityStore
from methodhub.store.jobs.store import SqlJobStore
from methodhub.store.query.queries import SqlQueries
from methodhub.store.schema import StoreError

DATABASE_NAME = "methodhub.db"


class Domain:
    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self.settings = settings
        self.clock: Clock = clock or SystemClock()
        self.common_clock = CommonClock(self.clock)
        """Of all nodes; of one alone it is its own."""
        self.metrics = Metrics()
        self.deadlines = Deadlines(self.clock.monotonic())
        self.background = Background(self.clock, self.deadlines)
        self.policies = Policies(frozenset(settings.hostname))
        self.rules = MethodRules(
            response_timeout_min=settings.response_timeout_min,
            response_timeout_max=settings.response_timeout_max,
            response_timeout_default=settings.response_timeout_default,
            connect_timeout_max=settings.connect_timeout_max,
            connect_timeout_default=settings.connect_timeout_default,
            payload_limit=settings.payload_limit,
            paste_invalid_answers=settings.paste_invalid_answers,
        )
        self.bearer = bearer_tokens(settings, self.clock, self.policies)
        self.throttles = throttles(settings, self.deadlines, self.clock, self.metrics, self.share)
        self.ready = False
        self.https_port: int | None = None
        self.mqtt_port: int | None = None
        self.amqp_port: int | None = None
        self._database: Database | None = None

    async def open(self) -> None:
        """Open the store and put the domain on it. Raises StartError."""
        settings = self.settings
        self._database = database = await self._open_database()
        self.job_store = SqlJobStore(database)
        self.hub_store = SqlHubStore(database)
        self.bus = await self.open_bus()
        self.identity_store = SqlIdentityStore(database)
        secret = await self.hub_store.secret("continuation", secrets.token_bytes(32))
        self.continuations = Continuations(secret)
        self.answers = Answers(SqlQueries(database), self.continuations)
        self.jobs = Jobs(
            self.job_store,
            self.common_clock,
            self.answers.targets,
            self.answers.count,
            running_jobs=job_limits(settings).running_jobs,
        )
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
        self.registry = Registry(
            self.identity_store, self.bus, self.clock, settings.modules_per_device, settings.max_devices
        )
        self.twins = Twins(self.hub_store, self.registry, self.bus, self.clock)
        self.authorities = CertificateAuthorities(self.hub_store, self.bus, self.clock, verify_chain)
        await self.authorities.load()
        self.presence = Presence(self.table, self.identity_store, self.clock, self.node_id, shared=self.is_shared)
        self.table.on_change = self._connection_changed
        self.truth = Truth(
            self.identity_store,
            self.hub_store,
            self.registry,
            self.policies,
            self.authorities,
            self.table,
            self.presence,
            DesiredPushes(self.table, self.hub_store, self.background.spawn),
            self.background,
            self.bus,
            shared=self.is_shared,
        )
        self.bus.subscribe(self.truth.hear)

    is_shared = False
    """Whether other nodes may serve the same hub."""

    def share(self) -> float:
        """This node's part of what the whole hub may do: 1 without other nodes."""
        return 1.0

    def places(self, whole: int) -> int:
        """This node's part of a number of places; the parts of all nodes make up the whole."""
        return whole

    async def open_bus(self) -> Bus:
        """Raises StartError."""
        return LocalBus()

    def node_id(self) -> str:
        return ""

    async def _open_database(self) -> Database:
        settings = self.settings
        where = settings.database_url or (None if settings.in_memory else settings.data_dir / DATABASE_NAME)
        try:
            return await open_database(where)
        except StoreError as error:
            raise StartError(str(error)) from error

    async def close(self) -> None:
        """Let go of the store when what was begun is done."""
        self.background.stop()
        if self.bearer is not None:
            self.bearer.stop()
        if self._database is not None:
            await self._database.close()
            self._database = None

    def _connection_changed(self, attachment: Attachment, connected: bool) -> None:
        self.presence.changed(attachment, connected)
        if not connected:
            self.registry.unpin(attachment.target)
        elif attachment.generation is not None:
            self.bus.publish(TargetAttached(attachment.target, attachment.generation))

    def api_services(self, methods: Methods | None) -> ApiServices:
        settings = self.settings
        return ApiServices(
            registry=self.registry,
            twins=self.twins,
            bulk=Bulk(self.registry, self.identity_store, self.hub_store, self.twins, self.clock),
            answers=self.answers,
            continuations=self.continuations,
            jobs=self.jobs,
            policy_changes=PolicyChanges(self.hub_store, self.policies, self.bus),
            presence=self.presence,
            policies=self.policies,
            authorities=self.authorities,
            clock=self.clock,
            metrics=self.metrics,
            rules=self.rules,
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
            is_ready=lambda: self.ready,
            deadlines=self.deadlines,
            methods=methods,
            bearer=self.bearer,
            throttles=self.throttles,
            is_basic_tier=settings.tier == "basic",
        )
