"""A bundle: everything needed to answer a prediction, immutable and content-addressed.

A folder ``bundles/<digest>/`` holds ``bundle.json``, the model in a format without code, golden
rows with the outputs they must give, the drift profile of the training set, and a model card.
``bundle.json`` carries the SHA-256 of each other file and the digest is the SHA-256 of
``bundle.json``, so one name fixes every byte. There is no wall time and no run id in a bundle: the
same inputs give the same digest, and the registry knows which runs made it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
from pydantic import AwareDatetime, ValidationError

from headrace import storage
from headrace.errors import BundleRefused
from headrace.mapped import Data, read_data
from headrace.plan import FeaturePlan
from headrace.spec import DriftPolicy, Part, Task
from headrace.trainers import RuntimeName

MANIFEST = "bundle.json"
GOLDEN = "golden.arrow"
REFERENCE = "reference.arrow"
CARD = "MODEL_CARD.md"
OUTPUT = "prediction"
"""The column, tensor and field that holds what the model predicts."""

_MODEL_FILES: dict[RuntimeName, str] = {
    "xgboost": "model.ubj",
    "onnx": "model.onnx",
    "torch": "model.safetensors",
    "ensemble": "ensemble.json",
    "graph": "graph.json",
}
"""Formats without code: UBJSON, ONNX, tensors with a graph, and lists of other bundles."""


def model_file(runtime: RuntimeName) -> str:
    """The name of the file that holds the model itself."""
    return _MODEL_FILES[runtime]


def file_names(runtime: RuntimeName) -> tuple[str, ...]:
    """The files of a bundle beside ``bundle.json``, the model first."""
    return (model_file(runtime), GOLDEN, REFERENCE, CARD)


class Lineage(Part):
    """Where a bundle comes from."""

    code_revision: str
    training_set_sha256: str
    certificate_sha256: str | None = None
    """The certificate of the training set: which rows, sources and definitions it was made of."""
    training_rows: int
    trained_from: AwareDatetime
    trained_until: AwareDatetime
    tested_until: AwareDatetime


class BundleManifest(Part):
    """What ``bundle.json`` says."""

    format: Literal["headrace-bundle-1"] = "headrace-bundle-1"
    model: str
    task: Task
    runtime: RuntimeName
    plan: FeaturePlan
    drift: DriftPolicy
    lineage: Lineage
    metrics: dict[str, float]
    parameters: dict[str, float | int | str]
    files: dict[str, str]
    """The SHA-256 of each other file."""


@dataclass(frozen=True)
class Bundle:
    """A verified bundle: every byte is what the digest says."""

    digest: str
    manifest: BundleManifest
    files: dict[str, Data]
    """What each file beside ``bundle.json`` holds; a large one is a map of the file."""

    @property
    def model(self) -> Data:
        """The model itself, in the format of its runtime."""
        return self.files[model_file(self.manifest.runtime)]

    @property
    def golden(self) -> pa.Table:
        """Input columns and ``prediction`` of the golden rows."""
        return _read_arrow(self.files[GOLDEN])


def write_bundle(root: str, manifest: BundleManifest, files: Mapping[str, bytes]) -> str:
    """Write a bundle below ``root`` and return its digest.

    Safe to run twice: files are named by what they hold, and ``bundle.json`` comes last, so a
    folder without it is no bundle yet.
    """
    names = file_names(manifest.runtime)
    hashes = {name: storage.sha256(files[name]) for name in names}
    manifest = manifest.model_copy(update={"files": hashes})
    document = _canonical(manifest)
    digest = storage.sha256(document)
    for name in names:
        storage.write_atomic(f"{root}/{digest}/{name}", files[name])
    storage.write_atomic(f"{root}/{digest}/{MANIFEST}", document)
    return digest


def read_bundle(root: str, digest: str) -> Bundle:
    """Return the bundle ``digest`` after checking every byte of it, before any parser sees one.

    Raises:
        BundleRefused: if it is not there, or a file is changed, missing or added.
    """
    manifest, folder = read_manifest(root, digest), f"{root}/{digest}"
    names = file_names(manifest.runtime)
    if added := set(storage.list_names(folder)) - {MANIFEST, *names}:
        raise BundleRefused(digest, f"files were added: {', '.join(sorted(added))}")
    files = {}
    for name in names:
        try:
            files[name], found = read_data(f"{folder}/{name}")
        except FileNotFoundError as error:
            raise BundleRefused(digest, f"{name} is missing from {folder}") from error
        if found != manifest.files.get(name):
            raise BundleRefused(digest, f"{name} was changed")
    return Bundle(digest, manifest, files)


def read_manifest(root: str, digest: str) -> BundleManifest:
    """Return what ``bundle.json`` says, without a look at the other files.

    Raises:
        BundleRefused: if it is not there, or is not what the digest says.
    """
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise BundleRefused(digest, "its digest is not 64 hexadecimal digits")
    folder = f"{root}/{digest}"
    try:
        document = storage.read_bytes(f"{folder}/{MANIFEST}")
    except FileNotFoundError as error:
        raise BundleRefused(digest, f"{MANIFEST} is missing from {folder}") from error
    if storage.sha256(document) != digest:
        raise BundleRefused(digest, f"{MANIFEST} was changed")
    try:
        return BundleManifest.model_validate_json(document)
    except ValidationError as error:
        raise BundleRefused(digest, f"{MANIFEST} is of another format: {error}") from error


def arrow_bytes(table: pa.Table) -> bytes:
    """A table as an Arrow IPC file; equal tables give equal bytes."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return bytes(sink.getvalue())


def _read_arrow(data: Data) -> pa.Table:
    return pa.ipc.open_file(pa.BufferReader(data)).read_all()


def _canonical(manifest: BundleManifest) -> bytes:
    return json.dumps(
        manifest.model_dump(mode="json"), sort_keys=True, separators=(",", ":")
    ).encode()
