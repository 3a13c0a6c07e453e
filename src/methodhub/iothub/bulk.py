"""Bulk requests and their results as JSON of the registry's REST interface (`wire/service.md` 3.4). Names of keys and
modes are taken in any case, as clients differ; names inside tags and properties are the back end's own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import ID_PATTERN, ID_RULE, Identity, Target
from methodhub.core.registry.items import BulkItem, ImportMode
from methodhub.iothub.identities import IdentityFields, identity_of
from methodhub.iothub.payload import json_error
from methodhub.iothub.twin_json import update_of

Object = dict[str, Any]

_KEYS = {
    key.lower(): key
    for key in (
        *("id", "deviceId", "moduleId", "eTag", "importMode", "status", "statusReason", "authentication", "twinETag"),
        *("tags", "properties", "capabilities", "deviceScope", "parentScopes", "managedBy", "type", "symmetricKey"),
        *("primaryKey", "secondaryKey", "x509Thumbprint", "primaryThumbprint", "secondaryThumbprint", "iotEdge"),
        *("desired", "reported", "policyKey", "devices"),
    )
}
_OBJECTS = {"authentication", "symmetricKey", "x509Thumbprint", "capabilities", "properties"}
"""Whose keys are the interface's, too."""

_MODES = {mode.lower(): mode for mode in ImportMode}
_WITH_IDENTITY = {ImportMode.CREATE, ImportMode.UPDATE, ImportMode.UPDATE_IF_MATCH}
_POLICY_KEYS = {
    "primarykey": ("primary_key",),
    "secondarykey": ("secondary_key",),
    "both": ("primary_key", "secondary_key"),
}


def parse_bulk(body: bytes) -> list[BulkItem]:
    """The items of a request, each with what is wrong with it. Raises 400004 or 400006 for what is no array of 1 or
    more items."""
    items = _decode(body)
    if not isinstance(items, list) or not items:
        raise HubError(ErrorCode.ArgumentInvalid, "The body is no JSON array of at least one device.")
    return [parse_item(item) for item in items]


def parse_item(value: Any) -> BulkItem:
    item = spelled(value) if isinstance(value, dict) else {}
    mode_text = item.get("importMode")
    mode = ImportMode.CREATE if mode_text is None else _MODES.get(str(mode_text).lower())
    device_id, module_id = item.get("id") or item.get("deviceId"), item.get("moduleId") or ""
    target = Target(
        device_id if isinstance(device_id, str) else "",
        module_id if isinstance(module_id, str) else "",
    )
    try:
        if not isinstance(value, dict):
            raise _invalid("The item is no JSON object.")
        _check_id("id", device_id)
        if module_id:
            _check_id("moduleId", module_id)
        if mode is None:
            raise _invalid(f"importMode is {str(mode_text)[:40]!r}, none of {', '.join(ImportMode)}.")
        update = update_of(item)
        return BulkItem(
            target,
            mode,
            identity=_identity(item, target) if mode in _WITH_IDENTITY else None,
            etag=_etag(item, "eTag"),
            twin_etag=_etag(item, "twinETag"),
            tags=update.tags,
            desired=update.desired,
        )
    except HubError as error:
        return BulkItem(target, mode or ImportMode.CREATE, error=error)


def spelled(value: Object, levels: int = 3) -> Object:
    """The object with its keys as the interface spells them, which has so many levels of its own."""
    result = {}
    for key, each in value.items():
        name = _KEYS.get(key.lower(), key)
        result[name] = spelled(each, levels - 1) if levels and name in _OBJECTS and isinstance(each, dict) else each
    return result


def _identity(item: Object, target: Target) -> Identity:
    fields = {key: each for key, each in item.items() if key not in {"id", "deviceId", "moduleId", "eTag"}}
    try:
        return identity_of(msgspec.convert(fields, IdentityFields), target)
    except msgspec.ValidationError as error:
        raise _invalid(f"The item is no identity: {error}.") from None


def _etag(item: Object, key: str) -> str | None:
    """Without the quotes and the mark of a weak etag, with which some clients send it."""
    etag = item.get(key)
    if etag is not None and not isinstance(etag, str):
        raise _invalid(f"{key} is no text.")
    return None if etag is None else etag.strip().removeprefix("W/").strip('"')


def _check_id(key: str, value: object) -> None:
    if not isinstance(value, str) or not ID_PATTERN.fullmatch(value):
        raise _invalid(f"{key} is {str(value)[:140]!r}, not {ID_RULE}.")


def bulk_result(items: Sequence[BulkItem], errors: Iterable[HubError | None]) -> Object:
    """The result, with the errors in the order of the request."""
    failed = [
        {
            "deviceId": item.target.device_id,
            "errorCode": error.code.name,
            "errorStatus": error.message,
            "moduleId": item.target.module_id or None,
            "operation": item.mode.value,
        }
        for item, error in zip(items, errors, strict=True)
        if error is not None
    ]
    return {"isSuccessful": not failed, "errors": failed, "warnings": []}


# --- new keys ----------------------------------------------------------------------------------------------------


def parse_regeneration(body: bytes) -> tuple[str, tuple[str, ...], list[Target]]:
    """The policy key as the caller spells it, the keys that it names, and whose. Raises 400004, 400006 or 400035."""
    value = _decode(body)
    fields = spelled(value) if isinstance(value, dict) else {}
    policy_key, devices = fields.get("policyKey"), fields.get("devices")
    names = _POLICY_KEYS.get(str(policy_key).lower())
    if names is None:
        raise HubError(
            ErrorCode.InvalidPolicyKey,
            f"policyKey is {str(policy_key)[:40]!r}, none of primaryKey, secondaryKey, both.",
        )
    if not isinstance(devices, list) or not devices:
        raise _invalid("devices is no JSON array of at least one device.")
    targets = []
    for each in devices:
        item = spelled(each) if isinstance(each, dict) else {}
        _check_id("id", item.get("id"))
        if item.get("moduleId"):
            _check_id("moduleId", item["moduleId"])
        targets.append(Target(item["id"], item.get("moduleId") or ""))
    return str(policy_key), names, targets


def regeneration_result(policy_key: str, targets: Sequence[Target], outcomes: Sequence[Identity | HubError]) -> Object:
    """Both keys of each identity that was changed, and why others were not."""
    rotated, errors = [], []
    for target, outcome in zip(targets, outcomes, strict=True):
        name = {"id": target.device_id, "moduleId": target.module_id or None}
        if isinstance(outcome, HubError):
            errors.append({**name, "errorCode": outcome.code.name, "errorStatus": outcome.message})
        else:
            keys = outcome.authentication
            rotated.append({**name, "primaryKey": keys.primary_key, "secondaryKey": keys.secondary_key})
    return {"policyKey": policy_key, "rotatedKeys": rotated, "errors": errors}


def _decode(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        wrong = json_error(body) or "it holds a number beyond a double, or half a character as an escape"
        raise HubError(ErrorCode.IotHubFormatError, f"The body cannot be taken: {wrong}.") from None


def _invalid(message: str) -> HubError:
    return HubError(ErrorCode.ArgumentInvalid, message)
