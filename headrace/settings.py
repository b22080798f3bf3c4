"""Where things are: read from ``HEADRACE_*`` variables and one TOML file an environment.

A variable wins over ``settings/<environment>.toml``, which wins over the defaults here. The
defaults run everything on one laptop with no services. Read with ``load_settings()`` when a
command or task starts, and passed down; nothing keeps them as a global.
"""

import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from headrace.errors import SettingRefused, UnknownName
from headrace.names import checked_name

PREFIX = "HEADRACE_"
FOLDER = Path("settings")
"""Where environments and clusters are described, in the working directory."""


def _amount_of_memory(amount: str) -> str:
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)? ?[kMGT]i?B", amount):
        raise ValueError("write a number and a unit, such as 512MiB or 2GiB")
    return amount


Memory = Annotated[str, AfterValidator(_amount_of_memory)]
"""An amount of memory, ``512MiB`` or ``2 GB``."""


class Settings(BaseSettings):
    """Where things are. Every field can be set as ``HEADRACE_<FIELD>``."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    environment: str = Field("local", description="which settings/<environment>.toml to read")
    home: Path = Field(Path(".headrace"), description="folder that holds all local state")
    storage: str = Field(
        "", description="folder or fsspec URL of tables, bundles, releases, predictions and logs"
    )
    online_store: str = Field(
        "",
        description="online feature store: a SQLite file, redis://host:port/database, or 'feast' "
        "for the one that feature_store.yaml names",
    )
    registry: str = Field("", description="MLflow tracking URI of the model registry")
    cluster: str = Field(
        "local",
        description="'local' for Dask on this machine, a scheduler's tcp:// address, or the name "
        "of a settings/clusters/<name>.toml",
    )
    workers: int = Field(2, ge=1, le=256, description="Dask worker processes of a local cluster")
    worker_memory: Memory = Field("2GiB", description="memory limit of one local Dask worker")
    lease_seconds: float = Field(
        15.0,
        ge=0.5,
        le=3600,
        description="how long a batch run may give no sign of life before another takes over",
    )
    alert_webhook: SecretStr = Field(
        SecretStr(""), description="http(s):// URL that alerts are posted to; nowhere if empty"
    )

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @field_validator("cluster")
    @classmethod
    def _name_or_address(cls, cluster: str) -> str:
        if not re.fullmatch(r"\w+://.+:\d+|[a-z0-9][a-z0-9_-]{0,63}", cluster):
            raise ValueError(
                "write 'local', an address such as tcp://scheduler:8786, or the name of a file in "
                "settings/clusters/"
            )
        return cluster

    @field_validator("online_store")
    @classmethod
    def _known_store(cls, store: str) -> str:
        if "://" in store and not re.fullmatch(r"rediss?://\S+", store):
            raise ValueError("write a path, redis://host:port/database, or 'feast'")
        return store

    @field_validator("alert_webhook")
    @classmethod
    def _http(cls, url: SecretStr) -> SecretStr:
        if url.get_secret_value() and not re.fullmatch(r"https?://\S+", url.get_secret_value()):
            raise ValueError("write a URL that starts with https:// or http://")
        return url

    @property
    def storage_uri(self) -> str:
        """The root of everything that commands and servers share."""
        return self.storage.rstrip("/") or str(self.home / "storage")

    @property
    def online_uri(self) -> str:
        """The online store: the path of a SQLite file, a ``redis://`` URL, or ``feast``."""
        if self.online_store == "feast" or "://" in self.online_store:
            return self.online_store
        return str(self.online_path)

    @property
    def online_path(self) -> Path:
        """The SQLite file of the online store."""
        return Path(self.online_store).absolute() if self.online_store else self.home / "online.db"

    @property
    def registry_uri(self) -> str:
        """The tracking URI of the model registry."""
        return self.registry or f"sqlite:///{self.home / 'registry.db'}"

    def uri(self, *parts: str) -> str:
        """The address of something under the storage root, ``uri("bundles", digest)``."""
        return "/".join((self.storage_uri, *parts))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Variables first, then what ``load_settings`` read from the TOML file."""
        return env_settings, init_settings


def load_settings(folder: Path | None = None) -> Settings:
    """Return the settings of this process.

    Args:
        folder: where ``<environment>.toml`` lies; ``settings/`` of the working directory if None.

    Raises:
        SettingRefused: for a variable or TOML key with a wrong name or a wrong value.
    """
    _refuse_unknown_variables()
    environment = os.environ.get(PREFIX + "ENVIRONMENT", "local")
    folder = folder or FOLDER
    from_file = _read_toml(folder, environment)
    try:
        settings = Settings(**from_file)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0])
        raise SettingRefused(PREFIX + field.upper(), first["input"], _expected(first)) from error
    if settings.cluster != "local" and "://" not in settings.cluster:
        cluster_file(settings.cluster, folder)
    return settings


def cluster_file(name: str, folder: Path | None = None) -> Path:
    """The file that says what the cluster of that name is.

    Raises:
        SettingRefused: if there is none.
    """
    path = (folder or FOLDER) / "clusters" / f"{name}.toml"
    if not path.exists():
        others = ", ".join(sorted(repr(file.stem) for file in path.parent.glob("*.toml"))) or "none"
        raise SettingRefused(
            PREFIX + "CLUSTER",
            name,
            f"write 'local' or an address such as tcp://scheduler:8786; there is no {path} that "
            f"would say what it is (there: {others})",
        )
    return path


def _refuse_unknown_variables() -> None:
    # HEADRACE_SERVER_* belongs to the online server's own settings (serving/settings.py).
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for variable in os.environ:
        if variable.startswith(PREFIX + "SERVER_"):
            continue
        if variable.startswith(PREFIX) and variable not in known:
            raise UnknownName("setting", variable, known)


def _read_toml(folder: Path, environment: str) -> dict[str, Any]:
    path = folder / f"{checked_name('environment', environment)}.toml"
    if not path.exists():
        if environment == "local":
            return {}
        raise SettingRefused(
            PREFIX + "ENVIRONMENT", environment, f"there is no {path}; write it, or use 'local'"
        )
    try:
        return tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise SettingRefused(str(path), "(file)", f"it is not TOML: {error}") from error


def _expected(error: Any) -> str:
    field = Settings.model_fields.get(str(error["loc"][0]))
    message = error["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    return f"{message} ({field.description})" if field else f"{message}; remove it"
