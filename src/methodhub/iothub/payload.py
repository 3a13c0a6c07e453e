"""Is a payload exactly one JSON value in UTF-8? Its bytes are checked and never written anew."""

from __future__ import annotations

import json

import msgspec

_decode = msgspec.json.Decoder().decode


def json_error(payload: bytes) -> str | None:
    """What is wrong with a JSON text, or None. Nesting beyond the parser is wrong, too.

    msgspec decides quickly for nearly all; it refuses a few texts that the standard allows (numbers beyond a double,
    lone surrogates as escapes), so its no is checked once more with the standard library.
    """
    try:
        _decode(payload)
    except RecursionError:
        return "it is nested too deeply"
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _second_opinion(payload)
    return None


def _second_opinion(payload: bytes) -> str | None:
    try:
        json.loads(payload.decode("utf-8"), parse_int=str, parse_float=str, parse_constant=_refuse)
    except RecursionError:
        return "it is nested too deeply"
    except UnicodeDecodeError as error:
        return f"it is not UTF-8 (byte {error.start})"
    except json.JSONDecodeError as error:
        return f"it is not one JSON value ({error.msg} at character {error.pos})"
    except ValueError as error:
        return f"it is not one JSON value ({error})"
    return None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
