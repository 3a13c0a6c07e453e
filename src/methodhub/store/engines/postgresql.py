"""PostgreSQL through asyncpg: pools of bounded size that find back when the server comes back. Knows no row."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from sqlalchemy import ARRAY, Connection, Double, FromClause, Text, bindparam, event, func, literal_column, text
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from methodhub.core.identity import Target
from methodhub.store.engines.lanes import Dialect, Fault, Lane, Lanes, text_of
from methodhub.store.schema import StoreError, migrate, prepare

T = TypeVar("T")

WRITERS = 8
READERS = 8
QUERIES = 2

CONNECT_TIMEOUT = 10.0
HOST_TIMEOUT = 2.0
"""Seconds for each host of several."""
STATEMENT_TIMEOUT = 30.0
LOCK_TIMEOUT = 10.0
"""Seconds, kept by the server."""

SILENCE_TIMEOUT = 40.0
"""Seconds until a server that says nothing at all is given up."""

MIGRATION_LOCK = 0x6D686875625F6462
"""The key of the advisory lock under which one of several starting nodes makes the schema."""

TO_RETRY = {"40001", "40P01"}
AWAY = ("08", "25006", "25P", "28", "3D", "40", "53", "55P03", "57", "58")
"""SQLSTATEs, or classes of them: connection lost, a standby, idle for too long, refused, rolled back, out of resources,
locked, stopping, broken disk."""
CUT = "57014"


async def open_postgresql(url: str) -> Lanes:
    """Connect, and bring the schema up to date. Raises StoreError, which never tells a password."""
    try:
        import asyncpg  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise StoreError(
            "A PostgreSQL database needs the driver asyncpg, which is not installed: pip install 'methodhub[cluster]'."
        ) from error
    try:
        await make_schema(url)
    except (DBAPIError, OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        # The chain of errors is cut: a driver may quote the URL.
        cause = "the driver cannot read its URL" if isinstance(error, ValueError) else text_of(error)
        raise StoreError(f"The database {described(url)} cannot be used: {cause}.") from None
    writer = Lane(pool(url, WRITERS), DIALECT, WRITERS, commits=True)
    # A reading method is one statement, which sees one state of the database without BEGIN and ROLLBACK around it.
    readers = Lane(pool(url, READERS, isolation_level="AUTOCOMMIT"), DIALECT, READERS, commits=False)
    queries = Lane(pool(url, QUERIES, execution_options={"postgresql_readonly": True}), DIALECT, QUERIES, commits=False)
    return Lanes(DIALECT, writer, readers, queries)


async def make_schema(url: str) -> None:
    """[HUB-upgrade] Once, whichever node comes first, while those of the version before go on."""
    engine = pool(url, 1, patient=True)
    try:
        async with engine.begin() as connection:
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
            if await connection.run_sync(prepare):
                await connection.run_sync(migrate)
    finally:
        await engine.dispose()


def described(url: str) -> str:
    """[HUB-no-keys] The URL without user, password and parameters; nothing of one whose password was not escaped."""
    plain, _, rest = url.partition("?")
    _, at, place = plain.rpartition("@")
    if "@" in rest and not at:
        return "postgresql://..."
    return f"postgresql://{place}" if at else plain


def pool(url: str, connections: int, *, patient: bool = False, **options: Any) -> AsyncEngine:
    """`url` is libpq's and goes to the driver as it is, with its TLS parameters; `patient` sets no time limits."""
    import asyncpg  # noqa: PLC0415 - an extra

    limits = {"statement_timeout": STATEMENT_TIMEOUT, "lock_timeout": LOCK_TIMEOUT}
    server_settings = {"application_name": "methodhub", "default_transaction_isolation": "read committed"}
    if not patient:
        server_settings |= {name: f"{seconds * 1000:.0f}" for name, seconds in limits.items()}

    hosts = hosts_of(url)
    timeout = CONNECT_TIMEOUT if len(hosts) == 1 else HOST_TIMEOUT

    async def connect_to(host: str) -> asyncpg.Connection:
        return await asyncpg.connect(
            host,
            timeout=timeout,
            command_timeout=None if patient else SILENCE_TIMEOUT,
            server_settings=server_settings,
        )

    async def connect() -> asyncpg.Connection:
        return await first_that_answers(hosts, connect_to)

    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        poolclass=AsyncAdaptedQueuePool,
        pool_size=connections,
        max_overflow=0,
        hide_parameters=True,  # [HUB-no-keys] in the text of an error, which is logged
        **options,
    )

    @event.listens_for(engine.sync_engine, "checkout")
    def replace_dead(connection: Any, _record: object, _proxy: object) -> None:
        # [HUB-database-restart] A server that went away has closed its connections: seen before anything is sent.
        if connection.driver_connection.is_closed():
            raise DisconnectionError

    return engine


def hosts_of(url: str) -> list[str]:
    """A URL for each host of one that names several, `postgresql://user@one,two:5433/db`."""
    scheme, separator, rest = url.partition("://")
    end = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
    credentials, at, hosts = rest[:end].rpartition("@")
    return [f"{scheme}{separator}{credentials}{at}{host}{rest[end:]}" for host in hosts.split(",")]


async def first_that_answers(hosts: list[str], connect: Callable[[str], Awaitable[T]]) -> T:
    """[HUB-database-hosts] One after another, the last good one first: the driver would spend all of its time on one
    that is switched off. Raises what the last one did."""
    for host in list(hosts):
        try:
            connection = await connect(host)
        except Exception as error:  # noqa: BLE001 - a standby is an error of its own
            failure = error
            continue
        hosts.remove(host)
        hosts.insert(0, host)
        return connection
    raise failure


def judge(error: Exception) -> Fault | None:
    sqlstate = getattr(error.orig if isinstance(error, DBAPIError) else error, "sqlstate", None)
    if sqlstate in TO_RETRY:
        return Fault.AGAIN
    if sqlstate == CUT:
        return Fault.CUT
    if sqlstate is not None:
        return Fault.AWAY if sqlstate.startswith(AWAY) else None
    if isinstance(error, DBAPIError):
        return Fault.AWAY if error.connection_invalidated or isinstance(error.orig, OSError) else lost(error.orig)
    return Fault.AWAY if isinstance(error, OSError) else lost(error)


def lost(error: BaseException | None) -> Fault | None:
    """A driver's error without a SQLSTATE: the connection was closed before, or under, a statement."""
    causes = (error, error.__cause__) if error is not None else ()
    names = {base.__name__ for cause in causes for base in type(cause).__mro__ if base.__module__.startswith("asyncpg")}
    return Fault.AWAY if names & {"InterfaceError", "ConnectionDoesNotExistError"} else None


@contextmanager
def limit(connection: Connection, seconds: float) -> Iterator[None]:
    connection.execute(text(f"SET LOCAL statement_timeout = {seconds * 1000:.0f}"))
    yield


def array_targets() -> FromClause:
    arrays = (bindparam(name, type_=ARRAY(Text)) for name in ("target_devices", "target_modules"))
    return func.unnest(*arrays).table_valued("device_id", "module_id", name="targets").render_derived()


def parameters_of(targets: Iterable[Target]) -> dict[str, Any]:
    keys = list(targets)
    return {
        "target_devices": [target.device_id for target in keys],
        "target_modules": [target.module_id for target in keys],
    }


DIALECT = Dialect(
    name="postgresql",
    insert=cast(Any, postgresql.insert),
    now=sql_cast(literal_column("extract(epoch FROM clock_timestamp())"), Double()),
    targets=array_targets(),
    parameters_of=parameters_of,
    judge=judge,
    limit=limit,
)
