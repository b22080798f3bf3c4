"""How the online server runs, from ``HEADRACE_SERVER_*`` variables and command-line options.

Where things are (storage, online store) is said by ``headrace.settings``, for all commands alike.
"""

import os
from typing import Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from headrace.errors import SettingRefused, UnknownName
from headrace.names import checked_name
from serving.http.caller import parse_networks

PREFIX = "HEADRACE_SERVER_"


class ServerSettings(BaseSettings):
    """How the server runs. Every field can be set as ``HEADRACE_SERVER_<FIELD>``."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    endpoint: str = Field(
        "flight_delay",
        description="endpoints whose releases are served, separated by commas; the first answers "
        "where a request names none",
    )
    model_memory_mb: int = Field(
        0,
        ge=0,
        description="MiB that all models may take together; those used least recently leave; 0: "
        "no limit",
    )
    host: str = Field("127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(8080, ge=0, le=65535, description="port to listen on; 0: any free one")
    max_body_bytes: int = Field(
        10_000_000, ge=1_000, le=1_000_000_000, description="largest request body"
    )
    max_rows: int = Field(10_000, ge=1, le=1_000_000, description="most rows in one request")
    max_binary_bytes: int = Field(
        64_000_000, ge=1_000, le=2_000_000_000, description="largest body with binary tensors"
    )
    body_seconds: float = Field(
        10.0, gt=0, le=3600, description="how long a body may take, besides 1 s for each 100 kB"
    )
    max_header_bytes: int = Field(
        16_384, ge=1_024, le=1_000_000, description="most bytes of a request's headers"
    )
    header_seconds: float = Field(10.0, gt=0, le=3600, description="how long headers may take")
    keep_alive_seconds: float = Field(
        75.0, gt=0, le=86_400, description="how long a connection may be without a request"
    )
    write_seconds: float = Field(
        10.0, gt=0, le=3600, description="how long an answer may wait for its reader"
    )
    max_connections: int = Field(
        10_000, ge=1, le=1_000_000, description="most connections of one process at a time"
    )
    grpc_port: int | None = Field(
        None, ge=0, le=65535, description="port of gRPC; 0: any free one; without it, no gRPC"
    )
    model_control: bool = Field(True, description="let callers load and unload models")
    workers: int = Field(1, ge=1, le=1024, description="processes that share the port")
    trusted_proxies: str = Field(
        "",
        description="networks, comma-separated, whose X-Forwarded-For names the caller in the log",
    )
    access_log: bool = Field(False, description="log a line for every request")
    slow_seconds: float = Field(1.0, gt=0, description="log requests that took longer")
    log_format: Literal["text", "json"] = Field("text", description="how a line of the log looks")
    max_batch_rows: int = Field(
        4_096, ge=1, le=1_000_000, description="most rows of several requests computed together"
    )
    max_waiting: int = Field(
        10_000, ge=1, le=1_000_000, description="requests that may wait for one model; more get 503"
    )
    max_wait_seconds: float = Field(
        0.1, gt=0, le=60, description="requests that would wait longer for their model get 503"
    )
    on_not_finite: Literal["refuse", "null"] = Field(
        "refuse", description="a prediction of NaN or infinity is an error (500), or null"
    )
    stream_rows: int = Field(
        256, ge=1, le=100_000, description="rows an event of a stream, unless the caller says"
    )
    poll_seconds: float = Field(0.5, gt=0, le=60, description="how often to look at the release")
    drain_seconds: int = Field(10, ge=0, description="how long requests may take to end on SIGTERM")
    store_deadline_seconds: float = Field(
        0.05, gt=0, le=10, description="how long one read of the online store may take"
    )
    store_retry_seconds: float = Field(
        0.5, gt=0, le=60, description="how long a store that failed is left alone between tries"
    )
    on_store_failure: Literal["refuse", "degrade"] = Field(
        "refuse", description="without features, refuse a request (503) or answer it degraded"
    )
    cache_seconds: float = Field(
        0.0, ge=0, le=3600, description="how old a kept row of an entity may be; 0: keep none"
    )
    cache_rows: int = Field(10_000, ge=1, le=10_000_000, description="entities whose rows are kept")
    log_flush_seconds: float = Field(
        5.0, gt=0, description="longest time an inference waits before it is written"
    )
    log_flush_rows: int = Field(20_000, ge=1, description="rows that are written at once")
    log_capacity_rows: int = Field(
        100_000, ge=1, description="rows that may wait; further ones are dropped and counted"
    )
    log_capacity_bytes: int = Field(
        64_000_000,
        ge=1_000_000,
        description="bytes that waiting rows may take; further ones are dropped and counted",
    )
    log_share: float = Field(
        1.0, ge=0, le=1, description="share of requests that is logged, chosen at random"
    )
    traces: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description="OTLP address that traces are sent to, as http://127.0.0.1:4318; none if empty",
    )
    traces_share: float = Field(
        1.0, ge=0, le=1, description="share of traces begun here that is kept"
    )

    explain_max_rows: int = Field(
        100, ge=1, le=100_000, description="most rows that one request may have explained"
    )
    jobs_store: str = Field(
        "",
        description="where asynchronous jobs are kept: a SQLite file, redis://host:port/database, "
        "or 'off'; in the home folder if empty",
    )
    jobs_max_queued: int = Field(
        100, ge=1, le=100_000, description="jobs of one model that may wait; more get 503"
    )
    jobs_max_rows: int = Field(100_000, ge=1, le=10_000_000, description="most rows in one job")
    jobs_max_body_bytes: int = Field(
        50_000_000, ge=1_000, le=1_000_000_000, description="largest body of a job"
    )
    jobs_part_rows: int = Field(
        256, ge=1, le=512, description="rows of a job that are computed together"
    )
    jobs_lease_seconds: float = Field(
        10.0,
        ge=0.5,
        le=3600,
        description="how long a job waits for a process that gives no sign of life",
    )
    jobs_keep_seconds: float = Field(
        86_400.0, gt=0, le=31_536_000, description="how long a job is kept after it has ended"
    )

    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where models compute; auto: on a GPU where their library can use one"
    )
    threads: int = Field(
        1,
        ge=0,
        le=1024,
        description="cores that the rows of one prediction are shared among; 0: all",
    )

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, networks: str) -> str:
        parse_networks(networks)
        return networks

    trial_seconds: float = Field(
        20.0,
        gt=0,
        le=3600,
        description="how long a child may take to load a bundle before the server does, beside "
        "reading its files",
    )
    trial_memory_mb: int = Field(
        2_048,
        ge=64,
        description="MiB that the child may take to load it, beside four times its files",
    )
    result_cache_mb: int = Field(
        0, ge=0, description="MiB of results that are kept in the process; 0: keep none"
    )
    result_cache_seconds: float = Field(
        60.0,
        gt=0,
        le=86_400,
        description="how long a result is used at most; less where a feature expires before",
    )
    result_cache_redis: str = Field(
        "",
        pattern=r"^(rediss?://\S+)?$",
        description="redis:// URL where servers share results; nowhere if empty",
    )
    result_cache_warm: str = Field(
        "",
        description="file of requests, a body of the plain API a line, whose results are computed "
        "before a model answers; none if empty",
    )

    @field_validator("endpoint")
    @classmethod
    def _are_names(cls, endpoint: str) -> str:
        return ",".join(checked_name("endpoint", name.strip()) for name in endpoint.split(","))

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The endpoints to serve, each once, in the order given."""
        return tuple(dict.fromkeys(self.endpoint.split(",")))


def load_server_settings(**overrides: object) -> ServerSettings:
    """Return the server's settings; an override, as from the command line, wins over a variable.

    Raises:
        SettingRefused: for a variable or option with a wrong value.
        UnknownName: for a ``HEADRACE_SERVER_`` variable that does not exist.
    """
    known = {PREFIX + name.upper() for name in ServerSettings.model_fields}
    for variable in os.environ:
        if variable.startswith(PREFIX) and variable not in known:
            raise UnknownName("setting", variable, known)
    try:
        return ServerSettings(**{k: v for k, v in overrides.items() if v is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        message = first["msg"][0].lower() + first["msg"][1:]
        expected = f"{message} ({ServerSettings.model_fields[name].description})"
        raise SettingRefused(PREFIX + name.upper(), first["input"], expected) from error
