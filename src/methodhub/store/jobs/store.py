"""Jobs and nodes as rows, and the port that these and the devices make up."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Double, bindparam, delete, func, insert, or_, select, tuple_, update

from methodhub.core.identity import Target
from methodhub.core.jobs.model import (
    ENDED,
    DeviceJob,
    Job,
    JobStatus,
    JobType,
    Lease,
    Orphan,
    Progress,
)
from methodhub.core.ports import Insertion
from methodhub.store.database import Database
from methodhub.store.jobs.devices import GET_PROGRESS, DeviceRows
from methodhub.store.jobs.rows import DEVICE, JOB, OF_JOB, PROGRESS, RUNNING, device_job_of, job_of, progress_of, row_of
from methodhub.store.tables import device_jobs, jobs, nodes

NOT_BEGUN = JOB.status.in_([JobStatus.QUEUED.value, JobStatus.SCHEDULED.value])
IS_RUNNING = JOB.status == JobStatus.RUNNING.value
HAS_ENDED = JOB.status.in_([status.value for status in ENDED])

GET = select(jobs).where(OF_JOB)
PAGE = select(jobs).where(JOB.job_id > bindparam("after")).order_by(JOB.job_id).limit(bindparam("limit"))
ACTIVE = select(func.count()).select_from(jobs).where(JOB.status.in_([JobStatus.QUEUED.value, JobStatus.RUNNING.value]))
DUE = (
    select(jobs)
    .where(or_(IS_RUNNING, NOT_BEGUN & (JOB.start_time <= bindparam("now"))))
    .order_by(JOB.status != JobStatus.RUNNING.value, JOB.start_time, JOB.job_id)
    .limit(bindparam("limit"))
)
NEXT_START = select(func.min(JOB.start_time)).where(NOT_BEGUN, JOB.start_time > bindparam("now"))
BEGIN = (
    update(jobs)
    .where(OF_JOB, NOT_BEGUN, JOB.start_time <= bindparam("now"))
    .values(status=JobStatus.RUNNING.value, selecting=True)
    .returning(*PROGRESS)
)
OPEN_REST = update(jobs).where(OF_JOB).values(staged=False)
GIVE_UP = (
    update(jobs)
    .where(OF_JOB, IS_RUNNING, JOB.cancel_requested.is_(False), JOB.failure_reason.is_(None))
    .values(failure_reason=bindparam("reason"), selecting=False)
)
FINISH = (
    update(jobs)
    .where(OF_JOB, IS_RUNNING, JOB.selecting.is_(False), JOB.pending_count == 0, JOB.running_count == 0)
    .values(status=bindparam("new_status"), end_time=bindparam("now"))
)
CANCEL_EARLY = update(jobs).where(OF_JOB, NOT_BEGUN).values(status=JobStatus.CANCELLED.value, end_time=bindparam("now"))
CANCEL_RUNNING = update(jobs).where(OF_JOB, IS_RUNNING).values(cancel_requested=True, selecting=False)

DEVICES = (
    select(device_jobs, JOB.type)
    .join_from(device_jobs, jobs, JOB.job_id == DEVICE.job_id)
    .where(
        DEVICE.job_id == bindparam("job"),
        tuple_(DEVICE.device_id, DEVICE.module_id) > tuple_(bindparam("device"), bindparam("module")),
    )
    .order_by(DEVICE.device_id, DEVICE.module_id)
    .limit(bindparam("limit"))
)

FORGET_ALL = delete(nodes)
RETIRE = delete(nodes).where(nodes.c.node_id == bindparam("node"))
ORPHANS = (
    select(DEVICE.job_id, DEVICE.device_id, DEVICE.module_id, DEVICE.attempts, DEVICE.lease_node, JOB.type)
    .join_from(device_jobs, jobs, JOB.job_id == DEVICE.job_id)
    .where(RUNNING, DEVICE.lease_node.not_in(select(nodes.c.node_id)))
    .limit(bindparam("limit"))
)

OLDEST_ENDED = select(JOB.job_id).where(HAS_ENDED, JOB.end_time < bindparam("before")).order_by(JOB.end_time).limit(1)
DELETE_DEVICES = delete(device_jobs).where(
    DEVICE.job_id == bindparam("job"),
    tuple_(DEVICE.device_id, DEVICE.module_id).in_(
        select(DEVICE.device_id, DEVICE.module_id).where(DEVICE.job_id == bindparam("job")).limit(bindparam("limit"))
    ),
)
DELETE_JOB = delete(jobs).where(OF_JOB)


class SqlJobStore(DeviceRows):
    """The port `JobStore` on a database."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._insert = database.insert(jobs).on_conflict_do_nothing()
        until = database.now + bindparam("seconds", type_=Double)
        self._enroll = insert(nodes).values(node_id=bindparam("node"), alive_until=until)
        self._renew = update(nodes).where(nodes.c.node_id == bindparam("node")).values(alive_until=until)
        self._live_nodes = select(nodes.c.node_id).where(
            nodes.c.alive_until > database.now + bindparam("left", type_=Double)
        )
        self._clock = select(database.now)
        self._bury = delete(nodes).where(nodes.c.alive_until < database.now)

    # --- jobs ----------------------------------------------------------------------------------------------------

    async def insert(self, job: Job, active_limit: int) -> Insertion:
        def work(connection: Connection) -> Insertion:
            begins = job.progress.status is JobStatus.QUEUED
            is_full = begins and connection.execute(ACTIVE).scalar_one() >= active_limit
            if is_full and connection.execute(GET, {"job": job.job_id}).one_or_none() is None:
                return Insertion.FULL
            inserted = connection.execute(self._insert, row_of(job)).rowcount == 1
            return Insertion.DONE if inserted else Insertion.EXISTS

        return await self._database.write(work)

    async def get(self, job_id: str) -> Job | None:
        rows = await self._database.rows(GET, {"job": job_id})
        return job_of(rows[0]) if rows else None

    async def page(self, job_type: JobType | None, status: JobStatus | None, after: str, limit: int) -> list[Job]:
        query = PAGE
        if job_type is not None:
            query = query.where(JOB.type == job_type.value)
        if status is not None:
            query = query.where(JOB.status == status.value)
        return [job_of(row) for row in await self._database.rows(query, {"after": after, "limit": limit})]

    async def due(self, now: float, limit: int) -> list[Job]:
        return [job_of(row) for row in await self._database.rows(DUE, {"now": now, "limit": limit})]

    async def next_start(self, now: float) -> float | None:
        start: float | None = (await self._database.rows(NEXT_START, {"now": now}))[0][0]
        return start

    async def begin(self, job_id: str, now: float) -> Progress | None:
        def work(connection: Connection) -> Progress | None:
            row = connection.execute(BEGIN, {"job": job_id, "now": now}).one_or_none()
            return None if row is None else progress_of(row)

        return await self._database.write(work)

    async def open_rest(self, job_id: str) -> Progress:
        return await self._change(OPEN_REST, {"job": job_id})

    async def give_up(self, job_id: str, reason: str) -> Progress:
        return await self._change(GIVE_UP, {"job": job_id, "reason": reason})

    async def finish(self, job_id: str, status: JobStatus, now: float) -> Progress:
        return await self._change(FINISH, {"job": job_id, "new_status": status.value, "now": now})

    async def _change(self, statement: Any, parameters: dict[str, Any]) -> Progress:
        def work(connection: Connection) -> Progress:
            connection.execute(statement, parameters)
            return progress_of(connection.execute(GET_PROGRESS, parameters).one())

        return await self._database.write(work)

    async def cancel(self, job_id: str, now: float) -> Job | None:
        def work(connection: Connection) -> Job | None:
            if connection.execute(CANCEL_EARLY, {"job": job_id, "now": now}).rowcount == 0:
                connection.execute(CANCEL_RUNNING, {"job": job_id})
            row = connection.execute(GET, {"job": job_id}).one_or_none()
            return None if row is None else job_of(row)

        return await self._database.write(work)

    async def devices(self, job_id: str, after: Target, limit: int) -> list[DeviceJob]:
        """Of one job, in the order of their ids, behind `after`."""
        parameters = {"job": job_id, "device": after.device_id, "module": after.module_id, "limit": limit}
        return [device_job_of(row) for row in await self._database.rows(DEVICES, parameters)]

    async def purge(self, before: float, limit: int) -> bool:
        def work(connection: Connection) -> bool:
            job_id = connection.execute(OLDEST_ENDED, {"before": before}).scalar()
            if job_id is None:
                return False
            if connection.execute(DELETE_DEVICES, {"job": job_id, "limit": limit}).rowcount < limit:
                connection.execute(DELETE_JOB, {"job": job_id})
            return True

        return await self._database.write(work)

    # --- nodes ---------------------------------------------------------------------------------------------------

    async def enroll(self, node_id: str, seconds: float, alone: bool) -> None:
        def work(connection: Connection) -> None:
            if alone:
                connection.execute(FORGET_ALL)
            connection.execute(self._enroll, {"node": node_id, "seconds": seconds})

        await self._database.write(work)

    async def clock(self) -> float:
        return float((await self._database.rows(self._clock, {}))[0][0])

    async def renew(self, node_id: str, seconds: float) -> bool:
        return await self._database.execute(self._renew, {"node": node_id, "seconds": seconds}) == 1

    async def retire(self, node_id: str) -> None:
        await self._database.execute(RETIRE, {"node": node_id})

    async def bury(self) -> int:
        return await self._database.execute(self._bury, {})

    async def live_nodes(self, left: float) -> set[str]:
        rows = await self._database.rows(self._live_nodes, {"left": left})
        return {row.node_id for row in rows}

    async def orphans(self, limit: int) -> list[Orphan]:
        return [
            Orphan(
                Lease(row.job_id, Target(row.device_id, row.module_id), row.attempts),
                row.lease_node,
                JobType(row.type),
            )
            for row in await self._database.rows(ORPHANS, {"limit": limit})
        ]
