"""Where values come from, each source laid over those before it, and one line for each value that cannot be used."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource, TomlConfigSettingsSource

from methodhub.config.checks import PREFIX, whole_path
from methodhub.config.table import Settings, allowed

CONFIG_VARIABLE = PREFIX + "CONFIG"


class ConfigError(Exception):
    """Settings that cannot be used. `problems` holds one complete line for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def load(
    flags: Mapping[str, object] | None = None,
    *,
    config: Path | None = None,
    assignments: Sequence[str] = (),
) -> Settings:
    """The settings from every source. `flags` maps names to values, `None` where a flag was not given;
    `assignments` are texts `name=value` (`--set`); `config` is the TOML file, else METHODHUB_CONFIG names it.

    Raises ConfigError with every problem, not only the first.
    """
    problems: list[str] = []
    path = config or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    layers = (
        (lambda name: str(path), _from_file(path, problems)),
        (lambda name: PREFIX + name.upper(), _from_environment(problems)),
        (lambda name: "--set", _from_assignments(assignments, problems)),
        (_flag, {name: value for name, value in (flags or {}).items() if value is not None}),
    )
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, layer in layers:
        values |= layer
        origins |= {name: origin(name) for name in layer}
    try:
        settings = Settings(**values)
    except ValidationError as error:
        problems += _explain(error, origins)
        raise ConfigError(problems) from None
    if problems:
        raise ConfigError(problems)
    return settings


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _unknown(name: str, where: str, prefix: str = "") -> str:
    """The line for a name that no setting has, with the one that was probably meant."""
    plain = name[len(prefix) :].lower().replace("-", "_")
    near = difflib.get_close_matches(plain, list(Settings.model_fields), n=1)
    hint = f"; did you mean {prefix}{near[0].upper() if prefix else near[0]}?" if near else ""
    return f"{where}: there is no setting {name!r}{hint}"


def _from_file(path: Path | None, problems: list[str]) -> dict[str, object]:
    if path is None:
        return {}
    path = whole_path(path)
    try:
        if not path.is_file():
            raise FileNotFoundError(2, "there is no such file")
        found: dict[str, object] = TomlConfigSettingsSource(Settings, path).toml_data
    except OSError as error:
        problems.append(f"{path}: cannot be read: {error.strerror}")
        return {}
    except ValueError as error:
        problems.append(f"{path}: is not valid TOML: {error}")
        return {}
    known = Settings.model_fields
    problems += [_unknown(name, str(path)) for name in found if name not in known]
    return {name: value for name, value in found.items() if name in known}


def _from_environment(problems: list[str]) -> dict[str, object]:
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    for name in os.environ:
        if name.upper().startswith(PREFIX) and name.upper() not in (*known, CONFIG_VARIABLE):
            problems.append(_unknown(name, "environment", PREFIX))
    return dict(EnvSettingsSource(Settings)())


SPEAKING = {"data_dir", "database_url", "nats_url", "hostname", "proxy_networks"}
"""Settings whose checks say themselves what is wrong."""


def field_of(name: str) -> str:
    """The setting that the name of an assignment means, however it is spelled."""
    return name.strip().replace("-", "_")


def _from_assignments(assignments: Sequence[str], problems: list[str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        field = field_of(name)
        if not equals:
            problems.append(f"--set {text}: must read name=value")
        elif field not in Settings.model_fields:
            problems.append(_unknown(name.strip(), "--set"))
        else:
            found[field] = value.strip()
    return found


def _explain(error: ValidationError, origins: Mapping[str, str]) -> Iterator[str]:
    """One line per problem: setting, value, where it came from, what is allowed."""
    for problem in error.errors(include_url=False):
        own = str(problem["ctx"]["error"]) if problem["type"] == "value_error" else ""
        if not problem["loc"]:
            yield from own.splitlines()
            continue
        name = str(problem["loc"][0])
        value = problem["input"]
        shown = str(value) if isinstance(value, str | int | float | Path) else repr(value)
        shown = "..." if name in ("database_url", "nats_url") else shown  # [HUB-no-keys]
        speaks = name in SPEAKING or name.startswith("bearer_")
        rule = own if own and speaks else f"must be {allowed(name)}"
        yield f"{'.'.join(map(str, problem['loc']))} = {shown} ({origins.get(name, 'default')}): {rule}"
