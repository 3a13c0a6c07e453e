"""What identities may be and how they change: values in, values or an error out. Knows no store."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Mapping
from dataclasses import replace

from methodhub.core.access import generate_key
from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import ID_PATTERN, ID_RULE, Authentication, AuthenticationType, Identity, Target

_THUMBPRINT = re.compile(r"[0-9A-Fa-f]{40}|[0-9A-Fa-f]{64}")
_MAX_TEXT = 128
_MAX_SCOPE = 512
MAX_PARENTS = 1


def device_not_found(target: Target) -> HubError:
    return HubError(
        ErrorCode.DeviceNotFound, f"Device {target.device_id} is not registered, or is disabled.", reason=None
    )


def module_not_found(target: Target) -> HubError:
    return HubError(
        ErrorCode.ModuleNotFound, f"Module {target.module_id} is not registered on device {target.device_id}."
    )


def not_found(target: Target) -> HubError:
    return module_not_found(target) if target.module_id else device_not_found(target)


def already_exists(target: Target) -> HubError:
    if target.module_id:
        return HubError(
            ErrorCode.ModuleAlreadyExistsOnDevice, f"Module {target.module_id} exists on {target.device_id}."
        )
    return HubError(ErrorCode.DeviceAlreadyExists, target.device_id)


# --- changes -----------------------------------------------------------------------------------------------------


def made(wanted: Identity) -> Identity:
    """The identity that a creation stores: with keys where it has none. Raises 400004, 400028."""
    check_identity(wanted)
    generation_id = str(secrets.randbelow(9 * 10**17) + 10**17)
    return replace(
        wanted,
        authentication=complete(wanted.authentication),
        generation_id=generation_id,
        etag=new_etag(),
        device_scope=wanted.device_scope or edge_scope(wanted, generation_id),
    )


def changed(wanted: Identity, current: Identity, now: float) -> Identity:
    """The identity that an update stores: keys that are missing stay as they were. Raises 400004, 400028."""
    check_identity(wanted)
    kept = current.device_scope if current.iot_edge and wanted.iot_edge else None
    return replace(
        wanted,
        authentication=complete(wanted.authentication, current.authentication),
        generation_id=current.generation_id,
        etag=new_etag(),
        status_updated_time=current.status_updated_time if wanted.enabled == current.enabled else now,
        device_scope=wanted.device_scope or kept or edge_scope(wanted, current.generation_id),
    )


def edge_scope(wanted: Identity, generation_id: str) -> str | None:
    """[HUB-edge-scope] An edge device has a scope of its own, which its children name as theirs."""
    if not wanted.iot_edge or wanted.target.module_id:
        return None
    return f"ms-azure-iot-edge://{wanted.target.device_id}-{generation_id}"


# --- judgements --------------------------------------------------------------------------------------------------


def check_active(target: Target, identity: Identity | None, device: Identity | None) -> HubError | None:
    if device is None or not device.enabled:
        return device_not_found(target)
    if identity is None:
        return module_not_found(target)
    return None if identity.enabled else device_not_found(target)


def check_if_match(current: Identity, if_match: str | None) -> None:
    if if_match is not None and if_match != current.etag:
        raise precondition_failed(current, if_match)


def precondition_failed(current: Identity, if_match: str | None) -> HubError:
    return HubError(
        ErrorCode.PreconditionFailed,
        f"Precondition failed: Device version did not match, existingVersion:{current.etag} newVersion:{if_match}",
    )


def new_etag() -> str:
    return base64.b64encode(secrets.token_bytes(9)).decode()


def lost_a_credential(old: Authentication, new: Authentication) -> bool:
    """Whether something that proved the identity before no longer does."""
    if old.type != new.type:
        return True
    thumbprints = {old.primary_thumbprint, old.secondary_thumbprint} - {
        new.primary_thumbprint,
        new.secondary_thumbprint,
    }
    return bool(set(old.keys) - set(new.keys) or thumbprints - {None})


def complete(wanted: Authentication, current: Authentication | None = None) -> Authentication:
    """Fill in the keys of a SAS identity: those given, else those it has, else new ones."""
    if wanted.type is not AuthenticationType.SAS:
        return replace(wanted, primary_key=None, secondary_key=None)
    old = current if current is not None and current.type is AuthenticationType.SAS else Authentication()
    return replace(
        wanted,
        primary_key=wanted.primary_key or old.primary_key or generate_key(),
        secondary_key=wanted.secondary_key or old.secondary_key or generate_key(),
    )


def check_identity(identity: Identity) -> None:
    """Raise 400004 or 400028 for what the wire allows and the rules do not (`wire/service.md` 3.2)."""
    for kind, value in (("deviceId", identity.target.device_id), ("moduleId", identity.target.module_id or "m")):
        if not ID_PATTERN.fullmatch(value):
            raise invalid(f"{kind} {value[:140]!r} is not {ID_RULE}.")
    texts: Mapping[str, str | None] = {
        "statusReason": identity.status_reason,
        "managedBy": identity.managed_by,
    }
    for kind, text in texts.items():
        if text is not None and len(text) > _MAX_TEXT:
            raise invalid(f"{kind} has {len(text)} characters of at most {_MAX_TEXT}.")
        if text is not None and "\0" in text:
            raise invalid(f"{kind} holds the character NUL, which not every database can keep.")
    check_scopes(identity)
    authentication = identity.authentication
    if bool(authentication.primary_key) != bool(authentication.secondary_key):
        raise invalid("primaryKey and secondaryKey are given together or not at all.")
    for key in authentication.keys:
        check_key(key)
    for thumbprint in (authentication.primary_thumbprint, authentication.secondary_thumbprint):
        if thumbprint and not _THUMBPRINT.fullmatch(thumbprint):
            raise invalid("A thumbprint is 40 (SHA-1) or 64 (SHA-256) hexadecimal digits.")
    if authentication.type is AuthenticationType.SELF_SIGNED and not (
        authentication.primary_thumbprint or authentication.secondary_thumbprint
    ):
        raise invalid("An identity of type selfSigned needs a primaryThumbprint or a secondaryThumbprint.")


def check_scopes(identity: Identity) -> None:
    if len(identity.parent_scopes) > MAX_PARENTS:
        raise HubError(
            ErrorCode.InvalidDeviceScope,
            f"parentScopes names {len(identity.parent_scopes)} parents of at most {MAX_PARENTS}.",
        )
    for scope in (identity.device_scope or "", *identity.parent_scopes):
        if len(scope) > _MAX_SCOPE or "\0" in scope:
            raise HubError(
                ErrorCode.InvalidDeviceScope,
                f"A scope has {len(scope)} characters: at most {_MAX_SCOPE} are taken, and NUL is none of them.",
            )


def check_key(key: str) -> None:
    try:
        size = len(base64.b64decode(key, validate=True))
    except (binascii.Error, ValueError):
        raise invalid("A symmetric key is base64 text.") from None
    if not 16 <= size <= 64:
        raise invalid(f"A symmetric key holds 16 to 64 bytes, not {size}.")


def invalid(message: str) -> HubError:
    return HubError(ErrorCode.ArgumentInvalid, message)
