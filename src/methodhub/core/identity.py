"""Who can be called: devices, their modules, and how each of them proves who it is."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

ID_PATTERN = re.compile(r"[A-Za-z0-9\-:.+%_#*?!(),=@;$']{1,128}")
"""What an id may hold (`wire/service.md` 3.2)."""

ID_RULE = "1 to 128 of ASCII letters, digits and - : . + % _ # * ? ! ( ) , = @ ; $ '"


class Target(NamedTuple):
    """A device, or with `module_id` one of its modules. Ids are case-sensitive."""

    device_id: str
    module_id: str = ""

    def __str__(self) -> str:
        return f"{self.device_id}/{self.module_id}" if self.module_id else self.device_id

    @property
    def device(self) -> Target:
        return Target(self.device_id) if self.module_id else self


class AuthenticationType(StrEnum):
    SAS = "sas"
    SELF_SIGNED = "selfSigned"
    CERTIFICATE_AUTHORITY = "certificateAuthority"
    NONE = "none"

    @property
    def is_certificate(self) -> bool:
        return self in (AuthenticationType.SELF_SIGNED, AuthenticationType.CERTIFICATE_AUTHORITY)


@dataclass(frozen=True, slots=True)
class Authentication:
    """How an identity proves itself. Keys are base64 text; thumbprints hexadecimal SHA-1 or SHA-256."""

    type: AuthenticationType = AuthenticationType.SAS
    primary_key: str | None = field(default=None, repr=False)
    secondary_key: str | None = field(default=None, repr=False)
    primary_thumbprint: str | None = None
    secondary_thumbprint: str | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(key for key in (self.primary_key, self.secondary_key) if key)


@dataclass(frozen=True, slots=True)
class Identity:
    """A stored device or module identity. Times are seconds since 1970, UTC; `None` means never.

    `generation_id` differs after delete and create; `etag` differs after each change.
    """

    target: Target
    generation_id: str
    etag: str
    authentication: Authentication
    enabled: bool = True
    status_reason: str | None = None
    status_updated_time: float | None = None
    iot_edge: bool = False
    device_scope: str | None = None
    parent_scopes: tuple[str, ...] = ()
    managed_by: str | None = None
    connected: bool = False
    connection_updated_time: float | None = None
    last_activity_time: float | None = None
