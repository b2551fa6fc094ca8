"""The environment variables that say where midwatch's things are."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pydantic import Field
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict


class Environment(BaseSettings):
    """What systemd, the desktop or a person set; an empty variable counts as not set."""

    model_config = SettingsConfigDict(case_sensitive=True, extra="ignore", frozen=True)

    config: str | None = Field(default=None, validation_alias="MIDWATCH_CONFIG")
    state: str | None = Field(default=None, validation_alias="STATE_DIRECTORY")
    runtime: str | None = Field(default=None, validation_alias="RUNTIME_DIRECTORY")
    credentials: str | None = Field(default=None, validation_alias="CREDENTIALS_DIRECTORY")
    xdg_config: str | None = Field(default=None, validation_alias="XDG_CONFIG_HOME")
    xdg_state: str | None = Field(default=None, validation_alias="XDG_STATE_HOME")
    xdg_runtime: str | None = Field(default=None, validation_alias="XDG_RUNTIME_DIR")
    home: str | None = Field(default=None, validation_alias="HOME")


def read(environ: Mapping[str, str] | None = None) -> Environment:
    """The environment in `environ`; by default the process's own."""
    source = EnvSettingsSource(Environment)
    source.env_vars = {
        name: value for name, value in (os.environ if environ is None else environ).items() if value
    }
    return Environment.model_construct(**source())
