"""The throttles of the original's tiers, times their units (`wire/service.md` 8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Tier = Literal["S1", "S2", "S3"]

METER_BLOCK = 4_096
"""Bytes. A call counts as one for each block of its request's payload that it begins, and as one without a payload."""


@dataclass(frozen=True, slots=True)
class Rate:
    """`count` in each `seconds`. That many may also pass at once, after a pause as long."""

    count: float
    seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class ThrottleLimits:
    method_blocks: Rate
    registry: Rate
    """Operations on identities; each of a bulk counts."""
    jobs: Rate
    """Creating, cancelling and listing jobs."""
    queries: Rate
    twin_reads: Rate
    twin_writes: Rate
    connections: Rate
    """New connections of devices and modules."""
    job_device_rate: float
    """Devices per second, of all running jobs together."""
    running_jobs: int


def throttle_limits(tier: Tier, units: int) -> ThrottleLimits:
    match tier:
        case "S1":
            return ThrottleLimits(
                method_blocks=Rate(40 * units),
                registry=Rate(100 * units, 60),
                jobs=Rate(100 * units, 60),
                queries=Rate(20 * units, 60),
                twin_reads=Rate(100),
                twin_writes=Rate(50),
                connections=Rate(max(100, 12 * units)),
                job_device_rate=10,
                running_jobs=1,
            )
        case "S2":
            return ThrottleLimits(
                method_blocks=Rate(120 * units),
                registry=Rate(100 * units, 60),
                jobs=Rate(100 * units, 60),
                queries=Rate(20 * units, 60),
                twin_reads=Rate(max(100, 10 * units)),
                twin_writes=Rate(max(50, 5 * units)),
                connections=Rate(120 * units),
                job_device_rate=max(10, units),
                running_jobs=5,
            )
        case "S3":
            return ThrottleLimits(
                method_blocks=Rate(6_000 * units),
                registry=Rate(5_000 * units, 60),
                jobs=Rate(5_000 * units, 60),
                queries=Rate(1_000 * units, 60),
                twin_reads=Rate(500 * units),
                twin_writes=Rate(250 * units),
                connections=Rate(6_000 * units),
                job_device_rate=50 * units,
                running_jobs=10,
            )


def method_blocks(payload_size: int) -> int:
    return max(1, -(-payload_size // METER_BLOCK))
