"""How twins change: patches and replacements, versions and metadata, and the limits of what a twin may hold
(`wire/service.md` 6). Pure: knows no store and no wire."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import Target
from methodhub.core.twins.model import FRESH_VERSION, Section, Twin

MAX_TAGS = 8 * 1024
MAX_PROPERTIES = 32 * 1024
"""Bytes of the desired properties, and of the reported ones; counted by `size`."""
MAX_STRING = 4 * 1024
MAX_KEY = 1024
MAX_DEPTH = 10
"""Levels of objects and arrays below a section."""
MAX_INTEGER = 4_503_599_627_370_496

_WRONG_IN_KEY = re.compile(r"[\x00-\x20\x7f-\x9f.$\ud800-\udfff]")
_WRONG_IN_TEXT = re.compile(r"[\x00\ud800-\udfff]")

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TwinUpdate:
    """What a back end changes. A patch (RFC 7396), where None leaves a section as it is; or with `replaces` the new
    tags and desired properties, where None is none of them."""

    tags: Object | None = None
    desired: Object | None = None
    replaces: bool = False


# --- changes -----------------------------------------------------------------------------------------------------


def created(target: Target, tags: Object | None, desired: Object | None, now: float) -> Twin:
    """The twin of an identity that is created with one. Raises 400004."""
    before = Twin(target, FRESH_VERSION - 1, desired=Section(version=FRESH_VERSION - (1 if desired else 0)))
    return replace(updated(before, TwinUpdate(tags, desired), now)[0], version=FRESH_VERSION)


def patched(twin: Twin, tags: Object | None, desired: Object | None, now: float) -> Twin:
    """The twin with patches of a back end's merged into it. Raises 400004."""
    return updated(twin, TwinUpdate(tags, desired), now)[0]


def updated(twin: Twin, update: TwinUpdate, now: float) -> tuple[Twin, Object | None]:
    """The twin after a back end's change - the same one if nothing changes - and the patch to tell its device of: None
    if no desired property changed. `now` is seconds since 1970, UTC. Raises 400004."""
    tags, desired = update.tags, update.desired
    if update.replaces:
        tags = difference(twin.tags, tags or {})
        desired = difference(twin.desired.values, desired or {})
    if not tags and not desired:
        return twin, None
    if tags:
        check(tags, "tags")
        new_tags = merged(twin.tags, tags)
        check_size(new_tags, "tags", MAX_TAGS)
        twin = replace(twin, tags=new_tags)
    if desired:
        check(desired, "properties.desired")
        section = _patched_section(twin.desired, desired, now, "properties.desired", versioned=True)
        twin = replace(twin, desired=section)
    return replace(twin, version=twin.version + 1), desired or None


def reported(twin: Twin, patch: Object, now: float) -> Twin:
    """The twin after its device reported properties: counted even if the patch is empty. Raises 400004."""
    check(patch, "properties.reported")
    section = _patched_section(twin.reported, patch, now, "properties.reported", versioned=False)
    return replace(twin, version=twin.version + 1, reported=section)


def _patched_section(section: Section, patch: Object, now: float, name: str, *, versioned: bool) -> Section:
    values, version = merged(section.values, patch), section.version + 1
    check_size(values, name, MAX_PROPERTIES)
    mark: Object = {"$lastUpdated": stamp(now)}
    if versioned:
        mark["$lastUpdatedVersion"] = version
    return Section(values, _marked(section.metadata, patch, mark), version)


def merged(values: Object, patch: Object) -> Object:
    """RFC 7396: null deletes, objects merge, everything else - arrays, too - replaces."""
    result = dict(values)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            old = result.get(key)
            result[key] = merged(old if isinstance(old, dict) else {}, value)
        else:
            result[key] = value
    return result


def difference(old: Object, new: Object) -> Object:
    """The patch that makes `new` of `old`: all of `new`, and null for what goes."""
    result: Object = dict.fromkeys(old.keys() - new.keys())
    for key, value in new.items():
        before = old.get(key)
        result[key] = difference(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return result


def _marked(metadata: Object, patch: Object, mark: Object) -> Object:
    """Metadata in which everything on the way to what a patch names is marked, and what it deletes is gone."""
    result = {**metadata, **mark}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = _marked(result.get(key, {}), value, mark)
        else:
            result[key] = mark
    return result


def stamp(now: float) -> str:
    """ISO 8601 with seven digits and Z, as all times of a twin."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f0Z")


# --- limits ------------------------------------------------------------------------------------------------------


def size(value: Any) -> int:
    """[HUB-twin-size] Bytes as they are counted: keys and texts in UTF-8, numbers 8, booleans (and null) 4."""
    if isinstance(value, dict):
        return sum(len(key.encode()) + size(each) for key, each in value.items())
    if isinstance(value, list):
        return sum(map(size, value))
    if isinstance(value, str):
        return len(value.encode())
    return 4 if value is None or isinstance(value, bool) else 8


def check_size(values: Object, name: str, limit: int) -> None:
    counted = size(values)
    if counted > limit:
        raise _invalid(name, f"would have {counted} bytes of at most {limit}")


def check(patch: Object, name: str) -> None:
    """[HUB-twin-limits] Raises 400004 with the path of what is wrong, its value and the limit."""
    for path, problem in _problems(patch, name, 0):
        raise _invalid(path, problem)


def _problems(value: Any, path: str, depth: int) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict | list):
        if depth > MAX_DEPTH:
            yield path, f"lies deeper than {MAX_DEPTH} levels"
        elif isinstance(value, dict):
            for key, each in value.items():
                yield from _key_problems(key, path)
                yield from _problems(each, f"{path}.{key}", depth + 1)
        else:
            for index, each in enumerate(value):
                yield from _problems(each, f"{path}[{index}]", depth + 1)
    elif isinstance(value, str):
        # Not every database can hold these two: text of PostgreSQL's jsonb has no NUL.
        wrong = _WRONG_IN_TEXT.search(value)
        if wrong:
            yield path, f"is {value[:100]!r}, which holds the character {wrong[0]!r}"
        elif len(value.encode()) > MAX_STRING:
            yield path, f"is a text of {len(value.encode())} bytes of at most {MAX_STRING}"
    elif isinstance(value, int) and not isinstance(value, bool) and abs(value) > MAX_INTEGER:
        yield path, f"is {value}; an integer must be within [{-MAX_INTEGER}; {MAX_INTEGER}]"


def _key_problems(key: str, path: str) -> Iterator[tuple[str, str]]:
    wrong = _WRONG_IN_KEY.search(key)
    if wrong:
        yield f"{path}.{key[:100]}", f"is a name that holds the character {wrong[0]!r}"
    elif not key:
        yield path, "has a property without a name"
    elif len(key.encode()) > MAX_KEY:
        yield f"{path}.{key[:100]}...", f"is a name of {len(key.encode())} bytes of at most {MAX_KEY}"


def _invalid(path: str, problem: str) -> HubError:
    shown = path if len(path) <= 400 else f"{path[:200]}...{path[-200:]}"
    return HubError(ErrorCode.ArgumentInvalid, f"{shown} {problem}.".encode(errors="backslashreplace").decode())
