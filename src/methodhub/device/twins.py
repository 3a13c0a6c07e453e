"""The twin requests of one connected target: answered one after the other, beside everything else that its connection
does. Knows no protocol."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, NamedTuple, TypeVar

import structlog

from methodhub.core.connections import Attachment
from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import Target
from methodhub.core.ports import StoreUnavailable
from methodhub.device.services import DeviceServices
from methodhub.iothub.twin_json import device_error, device_twin, parse_report

log = structlog.get_logger()

T = TypeVar("T")

MAX_WAITING = 50
"""Requests of one target that wait for their turn; with those, no more than MAX_WAITING_BYTES."""
MAX_WAITING_BYTES = 256 * 1024
READ_ATTEMPTS = 3


class TwinAnswer(NamedTuple):
    """Status, version of the reported properties after a patch, and the body (`wire/device.md` 1.9)."""

    status: int
    version: int | None = None
    body: bytes = b""


class TwinRequests(Generic[T]):
    """`answer` is told the tag of each request with its answer; of none after the connection has ended, when what still
    waits is forgotten, and only the change that is under way may yet be made."""

    __slots__ = ("_answer", "_attachment", "_queue", "_services", "_task", "_waiting_bytes")

    def __init__(
        self, services: DeviceServices, attachment: Attachment, answer: Callable[[T, TwinAnswer], None]
    ) -> None:
        self._services = services
        self._attachment = attachment
        self._answer = answer
        self._queue: deque[tuple[T, bytes | None]] = deque()
        self._waiting_bytes = 0
        self._task: asyncio.Task[None] | None = None

    def get(self, tag: T) -> None:
        self._add(tag, None)

    def patch(self, tag: T, body: bytes) -> None:
        self._add(tag, body)

    def _add(self, tag: T, body: bytes | None) -> None:
        """[HUB-twin-waiting] 429 at once for one too many: the device may try again."""
        self._services.metrics.twin_requests += 1
        size = len(body or b"")
        if self._queue and (len(self._queue) >= MAX_WAITING or self._waiting_bytes + size > MAX_WAITING_BYTES):
            error = HubError(ErrorCode.ThrottlingException, "Too many twin requests wait already.")
            self._answer(tag, answer_of(error))
            return
        self._queue.append((tag, body))
        self._waiting_bytes += size
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while self._queue:
            tag, body = self._queue.popleft()
            self._waiting_bytes -= len(body or b"")
            answer = await self._guarded(self._get() if body is None else self._report(body))
            if self._attachment.ended:
                return
            try:
                self._answer(tag, answer)
            except Exception:
                log.exception("twin answer failed", target=str(self._attachment.target))
        self._task = None

    async def _guarded(self, work: Awaitable[TwinAnswer]) -> TwinAnswer:
        try:
            return await work
        except HubError as error:
            return answer_of(error)
        except StoreUnavailable as error:
            log.error("the store is unavailable", target=str(self._attachment.target), error=str(error))
            return answer_of(HubError(ErrorCode.ServiceUnavailable, "The store cannot be used at this time."))
        except Exception:
            log.exception("twin request failed", target=str(self._attachment.target))
            return answer_of(HubError(ErrorCode.ServerError, "The hub failed unexpectedly; its log has the details."))

    async def _get(self) -> TwinAnswer:
        """[HUB-twin-order] Never older than what was pushed: a device would take it for the newer."""
        attachment = self._attachment
        for _ in range(READ_ATTEMPTS):
            twin = await self._services.twins.read(attachment.target)
            if twin.desired.version >= attachment.pushed_version:
                break
        attachment.known_desired = max(attachment.known_desired, twin.desired.version)
        return TwinAnswer(200, None, device_twin(twin))

    async def _report(self, body: bytes) -> TwinAnswer:
        twin = await self._services.twins.report(self._attachment.target, parse_report(body))
        return TwinAnswer(204, twin.reported.version)


async def keep_model_id(services: DeviceServices, target: Target, model_id: str | None) -> None:
    """What the device says it is goes into its twin before it is let in; it is let in without, too."""
    if not model_id or "\0" in model_id:
        return
    try:
        await services.twins.set_model_id(target, model_id)
    except (HubError, StoreUnavailable) as error:
        log.warning("the model of a device was not kept", target=str(target), error=str(error))


def answer_of(error: HubError) -> TwinAnswer:
    return TwinAnswer(error.code.http_status, None, device_error(error))
