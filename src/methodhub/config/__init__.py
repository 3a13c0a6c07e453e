"""The settings of a hub: defaults < TOML file < environment < flags."""

from methodhub.config.checks import PREFIX, SOCKET_NAME, SOCKET_PATH_LIMIT, default_data_dir
from methodhub.config.sources import CONFIG_VARIABLE, ConfigError, field_of, load
from methodhub.config.table import Settings, allowed, default_text

__all__ = [
    "CONFIG_VARIABLE",
    "PREFIX",
    "SOCKET_NAME",
    "SOCKET_PATH_LIMIT",
    "ConfigError",
    "Settings",
    "allowed",
    "default_data_dir",
    "default_text",
    "field_of",
    "load",
]
