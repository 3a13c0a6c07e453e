"""The devices of jobs as rows: chosen, leased to a node, given back, ended. Every change counts in its job's row."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Double, Integer, LargeBinary, Text, bindparam, func, insert, select, update

from methodhub.core.errors import HubError
from methodhub.core.identity import Target
from methodhub.core.jobs.model import WAITING, DeviceJobStatus, Job, Lease, Progress, Report
from methodhub.store.database import Database
from methodhub.store.jobs.rows import (
    COUNT,
    DEVICE,
    DEVICE_KEY,
    JOB,
    OF_JOB,
    PENDING,
    PROGRESS,
    RUNNING,
    changes,
    device_key,
    progress_of,
)
from methodhub.store.tables import device_jobs, identities, jobs
from methodhub.store.twins import of_targets

GET_PROGRESS = select(*PROGRESS).where(OF_JOB)
CURSOR: tuple[Any, ...] = (JOB.selected_device_id, JOB.selected_module_id)
GET_CURSOR = GET_PROGRESS.add_columns(*CURSOR)
MOVE_CURSOR = (
    update(jobs)
    .where(
        OF_JOB,
        JOB.status == "running",
        JOB.selecting.is_(True),
        JOB.selected_device_id == bindparam("after_device"),
        JOB.selected_module_id == bindparam("after_module"),
    )
    .values(
        selected_device_id=bindparam("last_device"),
        selected_module_id=bindparam("last_module"),
        selecting=bindparam("more"),
        device_count=JOB.device_count + bindparam("chosen", type_=Integer),
        pending_count=JOB.pending_count + bindparam("chosen", type_=Integer),
    )
    .returning(*PROGRESS)
)
ADD = insert(device_jobs)
OF_PENDING = (DEVICE.job_id == bindparam("job"), PENDING)
DUE = (
    select(DEVICE.device_id, DEVICE.module_id, DEVICE.attempts)
    .where(*OF_PENDING, DEVICE.not_before <= bindparam("now"))
    .order_by(DEVICE.not_before, DEVICE.ordinal)
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True)
)
DUE_FIRST = DUE.where(DEVICE.ordinal < bindparam("below"))
TAKE = (
    update(device_jobs)
    .where(*DEVICE_KEY)
    .values(
        status=DeviceJobStatus.RUNNING.value,
        lease_node=bindparam("node"),
        start_time=func.coalesce(DEVICE.start_time, bindparam("now", type_=Double)),
        updated_time=bindparam("now"),
        attempts=DEVICE.attempts + 1,
    )
)
NEXT_DUE = select(func.min(DEVICE.not_before)).where(
    *OF_PENDING, DEVICE.not_before > bindparam("now"), DEVICE.not_before < WAITING
)
HELD = (
    select(DEVICE.job_id, DEVICE.device_id, DEVICE.module_id)
    .where(DEVICE.lease_node == bindparam("node"), RUNNING)
    .with_for_update()
)
RECORD = (
    update(device_jobs)
    .where(*DEVICE_KEY)
    .values(
        status=bindparam("new_status"),
        lease_node=None,
        updated_time=bindparam("now"),
        end_time=bindparam("ended"),
        attempts=bindparam("tried"),
        not_before=bindparam("next"),
        outcome_status=bindparam("answer_status"),
        outcome_payload=bindparam("answer", type_=LargeBinary),
        error_code=bindparam("code"),
        error_description=bindparam("text"),
    )
)
SOME_PENDING = (
    select(DEVICE.device_id, DEVICE.module_id)
    .where(*OF_PENDING)
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True)
)
END = (
    update(device_jobs)
    .where(*DEVICE_KEY)
    .values(
        status=bindparam("new_status"),
        updated_time=bindparam("now"),
        end_time=bindparam("now"),
        error_code=func.coalesce(DEVICE.error_code, bindparam("code", type_=Text)),
        error_description=func.coalesce(DEVICE.error_description, bindparam("text", type_=Text)),
    )
)
AWAITED = (PENDING, DEVICE.not_before >= WAITING)
WAKE = update(device_jobs).where(*DEVICE_KEY, *AWAITED).values(not_before=bindparam("now"))


class DeviceRows:
    """What the port says of a job's devices."""

    def __init__(self, database: Database) -> None:
        self._database = database
        awaited = select(DEVICE.job_id, DEVICE.device_id, DEVICE.module_id).where(*AWAITED)
        self._awaited = of_targets(awaited, device_jobs, database.targets)
        enabled = select(identities.c.device_id, identities.c.module_id, identities.c.enabled)
        self._enabled = of_targets(enabled, identities, database.targets)

    async def select(
        self, job: Job, after: Target, targets: Sequence[Target], last: bool, now: float
    ) -> tuple[Progress, Target]:
        end = targets[-1] if targets else after
        cursor = {
            "job": job.job_id,
            "after_device": after.device_id,
            "after_module": after.module_id,
            "last_device": end.device_id,
            "last_module": end.module_id,
            "chosen": len(targets),
            "more": not last,
        }

        def work(connection: Connection) -> tuple[Progress, Target]:
            row = connection.execute(MOVE_CURSOR, cursor).one_or_none()
            if row is None:
                row = connection.execute(GET_CURSOR, {"job": job.job_id}).one()
                return progress_of(row), Target(row.selected_device_id, row.selected_module_id)
            if targets:
                first = row.device_count - len(targets)
                connection.execute(ADD, [new_row(job, target, first + n, now) for n, target in enumerate(targets)])
            return progress_of(row), end

        return await self._database.write(work)

    async def lease(
        self, job_id: str, node_id: str, now: float, limit: int, below: int | None
    ) -> tuple[list[Lease], Progress]:
        wanted = {"job": job_id, "now": now, "limit": limit} | ({} if below is None else {"below": below})

        def work(connection: Connection) -> tuple[list[Lease], Progress]:
            progress = _progress(connection, job_id)
            if progress.is_ending or progress.status.has_ended:
                return [], progress
            found = connection.execute(DUE if below is None else DUE_FIRST, wanted).all()
            if not found:
                return [], progress
            leases = [Lease(job_id, Target(row.device_id, row.module_id), row.attempts + 1) for row in found]
            taken = {"node": node_id, "now": now}
            connection.execute(TAKE, [device_key(job_id, lease.target) | taken for lease in leases])
            more = {DeviceJobStatus.PENDING: -len(leases), DeviceJobStatus.RUNNING: len(leases)}
            return leases, _count(connection, job_id, more)

        return await self._database.write(work)

    async def next_due(self, job_id: str, now: float) -> float | None:
        rows = await self._database.rows(NEXT_DUE, {"job": job_id, "now": now})
        due: float | None = rows[0][0]
        return due

    async def record(self, node_id: str, reports: Sequence[Report], now: float) -> dict[str, Progress]:
        """[HUB-job-once] A device whose lease is no longer this node's has its outcome from elsewhere."""

        def work(connection: Connection) -> dict[str, Progress]:
            held = {(row[0], Target(row[1], row[2])) for row in connection.execute(HELD, {"node": node_id})}
            parameters = []
            more: defaultdict[str, Counter[DeviceJobStatus]] = defaultdict(Counter)
            for report in reports:
                if (report.job_id, report.target) in held:
                    held.discard((report.job_id, report.target))
                    parameters.append(report_row(report, now))
                    more[report.job_id][report.status] += 1
                    more[report.job_id][DeviceJobStatus.RUNNING] -= 1
            if parameters:
                connection.execute(RECORD, parameters)
            # In one order everywhere: two transactions then wait for each other in one direction only.
            for job_id in sorted({report.job_id for report in reports}):
                more[job_id].setdefault(DeviceJobStatus.RUNNING, 0)
            return {job_id: _count(connection, job_id, dict(more[job_id])) for job_id in sorted(more)}

        return await self._database.write(work)

    async def end_pending(
        self, job_id: str, status: DeviceJobStatus, error: HubError | None, now: float, limit: int
    ) -> Progress:
        common = {
            "new_status": status.value,
            "now": now,
            "code": error.code.name if error else None,
            "text": error.message if error else None,
        }

        def work(connection: Connection) -> Progress:
            found = connection.execute(SOME_PENDING, {"job": job_id, "limit": limit}).all()
            if found:
                connection.execute(END, [device_key(job_id, Target(*row)) | common for row in found])
            return _count(connection, job_id, {DeviceJobStatus.PENDING: -len(found), status: len(found)})

        return await self._database.write(work)

    async def wake(self, targets: Sequence[Target], now: float) -> set[str]:
        found = await self._database.rows(self._awaited, self._database.parameters_of(targets))
        if found:
            keys = [device_key(row.job_id, Target(row.device_id, row.module_id)) | {"now": now} for row in found]
            await self._database.execute(WAKE, keys)
        return {row.job_id for row in found}

    async def enabled(self, targets: Sequence[Target]) -> dict[Target, bool]:
        rows = await self._database.rows(self._enabled, self._database.parameters_of(targets))
        return {Target(row.device_id, row.module_id): row.enabled for row in rows}


def _progress(connection: Connection, job_id: str) -> Progress:
    return progress_of(connection.execute(GET_PROGRESS, {"job": job_id}).one())


def _count(connection: Connection, job_id: str, more: dict[DeviceJobStatus, int]) -> Progress:
    return progress_of(connection.execute(COUNT, changes(job_id, more)).one())


def new_row(job: Job, target: Target, ordinal: int, now: float) -> dict[str, Any]:
    return {
        "job_id": job.job_id,
        "device_id": target.device_id,
        "module_id": target.module_id,
        "ordinal": ordinal,
        "status": DeviceJobStatus.PENDING.value,
        "created_time": now,
        "updated_time": now,
        "attempts": 0,
        "not_before": 0.0,
    }


def report_row(report: Report, now: float) -> dict[str, Any]:
    return device_key(report.job_id, report.target) | {
        "new_status": report.status.value,
        "now": now,
        "ended": None if report.status is DeviceJobStatus.PENDING else now,
        "tried": report.attempts,
        "next": report.not_before,
        "answer_status": report.outcome_status,
        "answer": report.payload,
        "code": report.error_code,
        "text": report.error_description,
    }
