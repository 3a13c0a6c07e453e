"""Puts jobs together: what they ask the registry, what they do to devices, and who runs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from methodhub.core.errors import HubError
from methodhub.core.identity import Target
from methodhub.core.jobs.node import Node
from methodhub.core.jobs.run import Work
from methodhub.core.jobs.scheduler import Scheduler
from methodhub.core.methods import Methods
from methodhub.core.query.answers import Answers
from methodhub.core.twins.twins import Twins
from methodhub.iothub.rest import MethodRules, parse_method_request
from methodhub.iothub.twin_json import parse_update
from methodhub.server.domain import Domain
from methodhub.server.limits import job_limits


def job_work(
    answers: Answers, methods: Methods, twins: Twins, rules: MethodRules, is_absent: Callable[[Target], bool]
) -> Work:
    async def update_twins(targets: Sequence[Target], work: bytes) -> list[HubError | None]:
        outcomes = await twins.update_many(targets, parse_update(work, replaces=False))
        return [outcomes[target] for target in targets]

    return Work(
        answers.targets, methods.invoke, lambda work: parse_method_request(work, rules), update_twins, is_absent
    )


def build_scheduler(domain: Domain, methods: Methods, node: Node) -> Scheduler:
    """On the domain of a hub that runs, whose devices it calls."""
    table = domain.table

    def is_absent(target: Target) -> bool:
        """Known without a call: only where no other node can hold the target."""
        return not domain.is_shared and table.get(target) is None

    scheduler = Scheduler(
        domain.job_store,
        job_work(domain.answers, methods, domain.twins, domain.rules, is_absent),
        domain.common_clock,
        domain.deadlines,
        job_limits(domain.settings),
        domain.metrics,
        node,
        lambda: (attachment.target for attachment in table),
    )
    scheduler.share = domain.share
    scheduler.places = domain.places
    jobs = domain.jobs
    jobs.on_change = scheduler.poke
    jobs.progress_of = scheduler.progress_of
    scheduler.on_change = jobs.changed
    table.on_ready = scheduler.notice
    gauges = domain.metrics.gauges
    gauges["running_jobs"] = ("Jobs that run", lambda: len(scheduler.runs))
    gauges["job_devices_in_flight"] = ("Devices that jobs are calling", lambda: scheduler.in_flight)
    return scheduler
