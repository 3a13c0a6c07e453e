"""What the settings say of whom to believe and how much to let pass, as the parts of a hub that do so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from methodhub.config import Settings
from methodhub.core.access import Policies
from methodhub.core.bearer.issuers import Issuer
from methodhub.core.bearer.tokens import BearerTokens
from methodhub.core.clock import Clock
from methodhub.core.deadlines import Deadlines
from methodhub.core.jobs.scheduler import JobLimits
from methodhub.core.throttles.limits import throttle_limits
from methodhub.core.throttles.throttles import Throttles
from methodhub.metrics import Metrics
from methodhub.net.jwks import KeyFetcher

SECONDS_PER_DAY = 86_400.0
KEY_CHECK_INTERVAL = 10.0
"""Seconds between two looks at whether the keys of an issuer are due."""


def issuers(settings: Settings) -> list[Issuer]:
    audience, algorithms = frozenset(settings.bearer_audience), frozenset(settings.bearer_algorithms)
    claims, grants = settings.bearer_claims, settings.bearer_grants
    found = []
    if settings.bearer_issuer is not None:
        found.append(
            Issuer(settings.bearer_issuer, audience, algorithms, claims, grants, jwks_url=settings.bearer_jwks_url)
        )
    for table in settings.bearer_issuers:
        found.append(
            Issuer(
                table.issuer,
                frozenset(table.audience) if table.audience is not None else audience,
                frozenset(table.algorithms) if table.algorithms is not None else algorithms,
                table.claims if table.claims is not None else claims,
                table.grants if table.grants is not None else grants,
                jwks_url=table.jwks_url,
            )
        )
    return found


def bearer_tokens(settings: Settings, clock: Clock, policies: Policies) -> BearerTokens | None:
    """None where no issuer is configured."""
    believed = issuers(settings)
    if not believed:
        return None
    return BearerTokens(believed, KeyFetcher(settings.bearer_ca).fetch, clock, policies.forget)


def throttles(
    settings: Settings, deadlines: Deadlines, clock: Clock, metrics: Metrics, share: Callable[[], float]
) -> Throttles | None:
    """`share`: this node's part of the limits."""
    if settings.throttle == "off":
        return None
    return Throttles(throttle_limits(settings.throttle, settings.units), deadlines, clock, metrics, share)


def job_limits(settings: Settings) -> JobLimits:
    """With throttles on, no more than the original allows."""
    limits = JobLimits(
        concurrency=settings.job_concurrency,
        running_jobs=settings.running_jobs,
        retention_seconds=settings.job_retention_days * SECONDS_PER_DAY,
    )
    if settings.throttle == "off":
        return limits
    throttled = throttle_limits(settings.throttle, settings.units)
    return replace(
        limits, running_jobs=min(limits.running_jobs, throttled.running_jobs), rate=throttled.job_device_rate
    )
