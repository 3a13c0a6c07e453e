"""Identities as the JSON of the registry's REST interface (`wire/service.md` 3.2)."""

from __future__ import annotations

from typing import Any

import msgspec

from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import Authentication, AuthenticationType, Identity, Target
from methodhub.iothub.rest import timestamp


class _Keys(msgspec.Struct, rename="camel"):
    primary_key: str | None = None
    secondary_key: str | None = None


class _Thumbprints(msgspec.Struct, rename="camel"):
    primary_thumbprint: str | None = None
    secondary_thumbprint: str | None = None


class _Authentication(msgspec.Struct, rename="camel"):
    symmetric_key: _Keys | None = None
    x509_thumbprint: _Thumbprints | None = msgspec.field(default=None, name="x509Thumbprint")
    type: str | None = None


class _Capabilities(msgspec.Struct, rename="camel"):
    iot_edge: bool | None = None


class IdentityFields(msgspec.Struct, rename="camel"):
    """What a back end says of an identity."""

    device_id: str | None = None
    module_id: str | None = None
    status: str | None = None
    status_reason: str | None = None
    authentication: _Authentication | None = None
    capabilities: _Capabilities | None = None
    device_scope: str | None = None
    parent_scopes: list[str] | None = None
    managed_by: str | None = None
    etag: str | None = None


_decode = msgspec.json.Decoder(IdentityFields).decode


def parse_identity(body: bytes, target: Target) -> Identity:
    """The identity that a PUT describes; what the server sets is left empty. Raises 400004 or 400006."""
    try:
        fields = _decode(body)
    except msgspec.ValidationError as error:
        raise HubError(ErrorCode.ArgumentInvalid, f"The body is not an identity: {error}.") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise HubError(ErrorCode.IotHubFormatError, f"The body is not JSON: {error}.") from None
    for key, given, wanted in (
        ("deviceId", fields.device_id, target.device_id),
        ("moduleId", fields.module_id, target.module_id),
    ):
        if given and given != wanted:
            raise HubError(
                ErrorCode.ArgumentInvalid, f"{key} is {given[:140]!r} in the body and {wanted!r} in the path."
            )
    return identity_of(fields, target)


def identity_of(fields: IdentityFields, target: Target) -> Identity:
    """The identity that these fields describe. Raises 400004."""
    return Identity(
        target=target,
        generation_id="",
        etag="",
        authentication=_parse_authentication(fields.authentication or _Authentication()),
        enabled=_parse_status(fields.status),
        status_reason=fields.status_reason,
        iot_edge=bool(fields.capabilities and fields.capabilities.iot_edge),
        device_scope=fields.device_scope,
        parent_scopes=tuple(fields.parent_scopes or ()),
        managed_by=fields.managed_by,
    )


def _parse_status(text: str | None) -> bool:
    status = (text or "enabled").lower()
    if status not in {"enabled", "disabled"}:
        raise HubError(ErrorCode.ArgumentInvalid, f"status is {text!r}, neither enabled nor disabled.")
    return status == "enabled"


def _parse_authentication(fields: _Authentication) -> Authentication:
    keys = fields.symmetric_key or _Keys()
    thumbprints = fields.x509_thumbprint or _Thumbprints()
    has_thumbprint = thumbprints.primary_thumbprint or thumbprints.secondary_thumbprint
    name = (fields.type or ("selfSigned" if has_thumbprint else "sas")).lower()
    for kind in AuthenticationType:
        if kind.value.lower() == name:
            return Authentication(
                kind,
                primary_key=keys.primary_key or None,
                secondary_key=keys.secondary_key or None,
                primary_thumbprint=thumbprints.primary_thumbprint or None,
                secondary_thumbprint=thumbprints.secondary_thumbprint or None,
            )
    allowed = ", ".join(AuthenticationType)
    raise HubError(ErrorCode.ArgumentInvalid, f"authentication.type is {fields.type!r}, none of {allowed}.")


def identity_json(identity: Identity) -> dict[str, Any]:
    """An identity as REST tells it, keys included: routes that show it demand a right for it."""
    authentication = identity.authentication
    common = {
        "generationId": identity.generation_id,
        "etag": identity.etag,
        "connectionState": "Connected" if identity.connected else "Disconnected",
        "connectionStateUpdatedTime": timestamp(identity.connection_updated_time),
        "lastActivityTime": timestamp(identity.last_activity_time),
        "cloudToDeviceMessageCount": 0,
        "authentication": {
            "symmetricKey": {
                "primaryKey": authentication.primary_key,
                "secondaryKey": authentication.secondary_key,
            },
            # An object even where there is none: some tools look into it unasked.
            "x509Thumbprint": {
                "primaryThumbprint": authentication.primary_thumbprint,
                "secondaryThumbprint": authentication.secondary_thumbprint,
            },
            "type": authentication.type.value,
        },
    }
    if identity.target.module_id:
        return {
            "deviceId": identity.target.device_id,
            "moduleId": identity.target.module_id,
            "managedBy": identity.managed_by,
            **common,
        }
    scopes: dict[str, Any] = {"parentScopes": list(identity.parent_scopes)}
    if identity.device_scope:
        scopes["deviceScope"] = identity.device_scope
    return {
        "deviceId": identity.target.device_id,
        **common,
        "status": "enabled" if identity.enabled else "disabled",
        "statusReason": identity.status_reason,
        "statusUpdatedTime": timestamp(identity.status_updated_time),
        "capabilities": {"iotEdge": identity.iot_edge},
        **scopes,
    }
