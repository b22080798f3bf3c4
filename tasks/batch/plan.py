"""``BatchPlan``: what a run will do, decided and checked before any worker starts.

Everything is deterministic. A shard is named by the bundle, the file and its stamp, the rows of it,
and every option that changes what comes out; the run by its shards. So a run that is committed
finds itself done, and where one file has changed only its shards have names that nobody has scored.
Nothing in a plan grows with the rows, but for one short record a shard.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import pyarrow as pa
from pydantic import AwareDatetime

from featurestore.columns import TIMESTAMP
from headrace.bundle import read_manifest
from headrace.plan import FeaturePlan
from headrace.settings import Settings
from headrace.spec import Part, load_spec
from headrace.storage import sha256
from headrace.window import Window
from serving.runtimes.device import DeviceChoice
from tasks.batch.columns import choose_columns, wanted_columns
from tasks.batch.inputs import Dataset, Piece, cut, offline_table, open_dataset
from tasks.batch.inputs.opening import AskedFormat
from tasks.batch.job import Features, Job
from tasks.batch.stamps import feature_stamps
from tasks.batch.unplaced import unplaced_rows

ROWS_PER_SHARD = 1_000_000
"""Rows of a shard at most, but for a larger row group: some seconds of work, which is what the
death of a worker costs."""

_ID_DIGITS = 24  # 96 bits of SHA-256
_TEXT_TYPES = {
    "float64": pa.float64(),
    "int64": pa.int64(),
    "string": pa.string(),
    "timestamp": TIMESTAMP,
}
_FORMAT = "headrace-batch-1"  # raised when equal rows would give another output


class ScoringWindow(Part):
    """A window of a model's scoring table."""

    model: str
    window: Window

    def __str__(self) -> str:
        """As it stands in names of task runs."""
        return f"{self.model} {self.window}"


class Files(Part):
    """A dataset anywhere."""

    uri: str
    format: AskedFormat | None = None
    """How the rows lie there; None: by the ending of the names."""
    bad_files: Literal["stop", "skip"] = "stop"
    allow_empty: bool = False

    def __str__(self) -> str:
        """As it stands in names of task runs."""
        return self.uri


Source = ScoringWindow | Files
"""Which rows are scored."""


class Shard(Part):
    """A piece of the input, named by everything that its output depends on."""

    id: str
    piece: Piece

    @property
    def rows(self) -> int:
        """How many rows go in."""
        return self.piece.rows


class Options(Part):
    """How rows are scored; all that changes the output is part of the shards' names."""

    features: Features | None = None
    """None: the input's own columns for a dataset whose model reads no view, else offline."""
    keep: tuple[str, ...] | None = None
    """Columns that the output has too; None: the entity keys and the event timestamp."""
    at: AwareDatetime | None = None
    """The moment of every row of an input that has none."""
    rows_per_shard: int = ROWS_PER_SHARD
    device: DeviceChoice = "auto"


class BatchPlan(Part):
    """What a run will do."""

    run: str
    model: str
    source: str
    """What is scored, in words."""
    job: Job
    shards: tuple[Shard, ...]
    bytes: int
    """Of the input's files."""
    quarantined: dict[str, str]
    """Files that are left out, and why."""
    unplaced: int = 0
    """Rows of the scoring table that are in no window, as their moment is null."""

    @property
    def rows(self) -> int:
        """How many rows go in."""
        return sum(shard.rows for shard in self.shards)


def make_plan(
    settings: Settings,
    source: Source,
    options: Options,
    *,
    digest: str,
    output: str | None = None,
) -> BatchPlan:
    """Find the input, check that it fits the bundle, and cut it into shards.

    Reads footers and documents only, and writes nothing.

    Args:
        settings: where everything is.
        source: which rows.
        options: how they are scored.
        digest: the bundle that scores.
        output: where to; named after the model and the rows if None.

    Raises:
        BundleRefused: if the bundle's ``bundle.json`` is missing or changed.
        SchemaMismatch: if the input lacks a column, or has one of a wrong type.
        KeepRefused: for a column that cannot be kept.
        InputNotFound, InputRefused, InputBroken, InputEmpty: as ``open_dataset``.
    """
    bundle = read_manifest(settings.uri("bundles"), digest)
    features = options.features or _usual_features(source, bundle.plan)
    wanted = wanted_columns(bundle.plan, features, options.keep)
    dataset = _open(settings, source, wanted, _text_types(bundle.plan))
    job = Job(
        output=(output or _usual_output(settings, source, bundle.model)).rstrip("/"),
        digest=digest,
        features=features,
        columns=choose_columns(
            bundle.plan,
            dataset.schema,
            source=dataset.uri,
            features=features,
            keep=options.keep,
            has_moment=options.at is not None,
        ),
        at=options.at,
        stamps=feature_stamps(settings, bundle.plan, features),
        device=options.device,
    )
    shards = name_shards(cut(dataset, options.rows_per_shard), job)
    return BatchPlan(
        run=name_run(job, shards, (one.uri for one in dataset.quarantined)),
        model=bundle.model,
        source=dataset.uri,
        job=job,
        shards=shards,
        bytes=dataset.bytes,
        quarantined={one.uri: one.reason for one in dataset.quarantined},
        unplaced=unplaced_rows(settings, source.model) if isinstance(source, ScoringWindow) else 0,
    )


def name_shards(pieces: Iterable[Piece], job: Job) -> tuple[Shard, ...]:
    """Name each piece by what its output depends on; the same pieces and job give the same names.

    Where parts go is not among it.
    """
    common = job.model_dump_json(exclude={"output"})
    return tuple(Shard(id=_id(common, piece.model_dump_json()), piece=piece) for piece in pieces)


def name_run(job: Job, shards: Sequence[Shard], quarantined: Iterable[str]) -> str:
    """Name what a run computes: its shards, and the files that are known to be left out."""
    common = job.model_dump_json(exclude={"output"})
    return _id(common, *(shard.id for shard in shards), *quarantined)


def window_output(settings: Settings, model: str, window: Window) -> str:
    """Where the predictions of a window of a model's scoring table are."""
    return settings.uri("predictions", model, str(window))


def _open(
    settings: Settings,
    source: Source,
    columns: list[str] | None,
    types: dict[str, pa.DataType],
) -> Dataset:
    if isinstance(source, ScoringWindow):
        spec = load_spec(source.model)
        moment = spec.label.event_timestamp
        return offline_table(settings, spec.scoring_table, source.window, moment)
    return open_dataset(
        source.uri,
        format=source.format,
        columns=columns,
        bad_files=source.bad_files,
        empty_ok=source.allow_empty,
        types=types,
    )


def _text_types(plan: FeaturePlan) -> dict[str, pa.DataType]:
    """What the columns of a text file must be, where the model says so."""
    inputs = dict.fromkeys(plan.columns, pa.float64())
    return inputs | {field.name: _TEXT_TYPES[field.dtype] for field in plan.request}


def _usual_features(source: Source, plan: FeaturePlan) -> Features:
    return "input" if isinstance(source, Files) and not plan.views else "offline"


def _usual_output(settings: Settings, source: Source, model: str) -> str:
    if isinstance(source, ScoringWindow):
        return window_output(settings, source.model, source.window)
    told = f"{source.uri} {source.format or ''}"
    return settings.uri("predictions", model, f"input-{sha256(told.encode())[:12]}")


def _id(*parts: str) -> str:
    return sha256("\n".join((_FORMAT, *parts)).encode())[:_ID_DIGITS]
