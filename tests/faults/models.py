"""A storage of small bundles that take raw features alone, and ways to spoil them."""

import random
import struct
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from headrace.bundle import (
    CARD,
    GOLDEN,
    REFERENCE,
    BundleManifest,
    Lineage,
    arrow_bytes,
    model_file,
    write_bundle,
)
from headrace.chain import newest
from headrace.plan import FeaturePlan
from headrace.release import move_release
from headrace.spec import DriftPolicy, RequestField
from serving.predictor import golden_table

COLUMNS = 5
ROW = [0.5, -0.25, 1.0, 2.0, -1.5]
"""A row to ask: each version answers another number."""


@dataclass(frozen=True)
class Model:
    """A trained model: UBJSON, and what it answers for ROW and the golden rows."""

    ubjson: bytes
    golden: bytes
    answer: float


def train(seed: int, *, trees: int = 3, depth: int = 3) -> Model:
    """Train a model; another seed, another model."""
    import xgboost as xgb

    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(400, COLUMNS)).astype(np.float32)
    label = matrix[:, seed % COLUMNS] + rng.normal(size=400) > 0
    settings = {"objective": "binary:logistic", "max_depth": depth, "nthread": 1, "seed": seed}
    booster = xgb.train(settings, xgb.DMatrix(matrix, label), trees)
    golden = golden_table(_names(), matrix[:16], booster.inplace_predict(matrix[:16]))
    answer = booster.inplace_predict(np.array([ROW], np.float32))[0]
    return Model(bytes(booster.save_raw("ubj")), arrow_bytes(golden), float(answer))


@dataclass(frozen=True)
class Models:
    """A storage root with bundles and releases of one endpoint."""

    root: str
    endpoint: str = "tiny"

    @property
    def bundles(self) -> str:
        """Where its bundles are."""
        return f"{self.root}/bundles"

    def bundle(self, model: Model, *, runtime: str = "xgboost", **files: bytes) -> str:
        """Write a bundle whose hashes are right, whatever its files hold; return its digest."""
        manifest = _MANIFEST.model_copy(update={"runtime": runtime})
        given = {
            model_file(runtime): model.ubjson,
            GOLDEN: model.golden,
            REFERENCE: b"profile",
            CARD: b"# tiny",
        }
        return write_bundle(self.bundles, manifest, given | files)

    def release(self, digest: str) -> None:
        """Move the endpoint to a bundle."""
        at = newest(f"{self.root}/releases/{self.endpoint}")
        move_release(
            self.root, self.endpoint, champion=digest, expected=at, by="test", reason="test"
        )

    def file(self, digest: str) -> Path:
        """The model's file in a bundle."""
        return Path(self.bundles, digest, model_file("xgboost"))


def spoiled(model: Model, kind: str, rng: random.Random) -> Model:
    """The model with its file spoiled in one of the ways of ``KINDS``."""
    return replace(model, ubjson=KINDS[kind](model.ubjson, rng))


def _flipped(data: bytes, rng: random.Random) -> bytes:
    bits = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 20))):
        place = rng.randrange(1, len(bits))
        bits[place] ^= 1 << rng.randrange(8)
    return bytes(bits)


def _truncated(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def _swollen(data: bytes, rng: random.Random) -> bytes:
    """Arrays that say they hold billions of numbers."""
    places = [at for at in _arrays(data, b"[$") if data[at + 3 : at + 5] == b"#L"]
    at = rng.choice(places) + 5
    return data[:at] + struct.pack(">q", rng.randrange(1 << 31, 1 << 36)) + data[at + 8 :]


def _endless(data: bytes, _: random.Random) -> bytes:
    """Trees whose every node is its own child: whoever walks down never arrives."""
    for name in (b"left_children", b"right_children"):
        at = 0
        while (at := data.find(name, at)) >= 0:
            at += len(name)
            assert data[at : at + 5] == b"[$l#L", data[at : at + 5]
            (count,) = struct.unpack(">q", data[at + 5 : at + 13])
            children = struct.pack(f">{count}i", *range(count))
            data = data[: at + 13] + children + data[at + 13 + 4 * count :]
    return data


def _arrays(data: bytes, sign: bytes) -> list[int]:
    found, at = [], data.find(sign)
    while at >= 0:
        found.append(at)
        at = data.find(sign, at + 1)
    return found


KINDS = {"flipped": _flipped, "truncated": _truncated, "swollen": _swollen, "endless": _endless}


def _names() -> tuple[str, ...]:
    return tuple(f"x{n}" for n in range(COLUMNS))


_MANIFEST = BundleManifest(
    model="tiny",
    task="binary",
    runtime="xgboost",
    plan=FeaturePlan(
        project="headrace",
        feature_service=None,
        definitions_sha256="0" * 64,
        event_timestamp="at",
        views=(),
        request=(
            RequestField(name="at", dtype="timestamp", description="the moment"),
            *(RequestField(name=name, description="a number") for name in _names()),
        ),
        inputs_from_request=_names(),
        transforms=(),
    ),
    drift=DriftPolicy(),
    lineage=Lineage(
        code_revision="0" * 40,
        training_set_sha256="0" * 64,
        training_rows=400,
        trained_from=datetime(2013, 1, 1, tzinfo=UTC),
        trained_until=datetime(2013, 6, 1, tzinfo=UTC),
        tested_until=datetime(2013, 7, 1, tzinfo=UTC),
    ),
    metrics={},
    parameters={},
    files={},
)
