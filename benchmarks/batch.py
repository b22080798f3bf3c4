"""Batch prediction of two million rows, Parquet to Parquet, against the loops that people write.

Whole processes, in turn, three rounds: ours with the flow, the cluster and the commit protocol; the
bare limit of XGBoost (pyarrow, ``inplace_predict``, write); pandas and ``DMatrix``; Ray Data and
Spark where they are installed (``--peers`` names a Python that has them; once, they are slow).
CPU-seconds are those of the whole tree of processes and, for ours, of the Prefect server too.

What a process costs before its first row (imports, workers, a flow run) does not grow with the
rows. It is measured for each variant with an input of two rows, and told apart: ratios called
``whole_`` are of all CPU-seconds, the others of those beyond that start, on both sides.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks._processes import Cost, adopt_orphans, cost_of
from benchmarks.harness import Figures, environment, show
from headrace.settings import Settings
from tasks import prefect_server

ROWS, FEATURES, TREES, DEPTH = 2_000_000, 20, 200, 6
ROWS_A_GROUP = 131_072
NAMES = [f"f{number:02}" for number in range(FEATURES)]
SCRIPTS = Path(__file__).parent / "batch_peers"
OURS, HERE = "ours", "ours_in_process"
BARE, PANDAS, RAY, SPARK = "inplace_predict", "pandas_dmatrix", "ray_data", "spark"


@dataclass(frozen=True)
class Variant:
    """A command that scores the Parquet files of a folder into another folder."""

    name: str
    command: Callable[[Path, Path], list[str]]
    env: dict[str, str]
    servers: tuple[int, ...] = ()
    """Processes that work for it and live on."""

    def run(self, source: Path, out: Path) -> Cost:
        """What one run costs, into a folder that is not there yet."""
        shutil.rmtree(out, ignore_errors=True)
        return cost_of(self.command(source, out), self.env, servers=self.servers)


@dataclass(frozen=True)
class Measured:
    """The runs of a variant, and those of two rows."""

    runs: list[Cost]
    starts: list[Cost]

    @property
    def cpu_seconds(self) -> float:
        """Of a whole run, its median."""
        return median(cost.cpu_seconds for cost in self.runs)

    @property
    def beyond_start(self) -> float:
        """CPU-seconds of a run beyond those of two rows."""
        return self.cpu_seconds - median(cost.cpu_seconds for cost in self.starts)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batch")
    parser.add_argument("--quick", action="store_true", help="a round of fewer rows: within 50 s")
    parser.add_argument("--peers", default=sys.executable, help="a Python that has Ray or Spark")
    asked = parser.parse_args(argv)
    adopt_orphans()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(home=Path(folder) / "home")
        server = prefect_server.ensure_server(settings)
        try:
            Bench(Path(folder), settings, server.pid, asked).measure()
        finally:
            prefect_server.stop(settings)


class Bench:
    """The data, the model and the variants."""

    def __init__(
        self, folder: Path, settings: Settings, server: int, asked: argparse.Namespace
    ) -> None:
        self.folder, self.quick, self.model = folder, asked.quick, folder / "model.ubj"
        self.rows = ROWS // 8 if asked.quick else ROWS
        self.source, self.start, self.many = folder / "in", folder / "start", folder / "many"
        self.empty = folder / "empty"
        random = np.random.default_rng(0)
        write_input(random, [self.rows], self.source)
        write_input(random, [1, 1], self.start)
        write_input(random, [0], self.empty)
        digest = make_bundle(settings, random, self.model)
        self.variants = [
            self._ours(OURS, "cluster", digest, settings, server),
            self._ours(HERE, "here", digest, settings, server),
            *(self._peer(name, sys.executable) for name in (BARE, PANDAS)),
        ]
        slow = () if asked.quick else ((RAY, "ray"), (SPARK, "pyspark"))
        self.slow = [
            self._peer(name, asked.peers) for name, wants in slow if has(asked.peers, wants)
        ]

    def measure(self) -> None:
        """Run every variant in turn, and show the figures."""
        rounds = 1 if self.quick else 3
        found = {v.name: Measured([], []) for v in [*self.variants, *self.slow]}
        for number in range(rounds):
            for variant in [*self.variants, *(self.slow if number == 0 else [])]:
                out = self.folder / variant.name
                print(f"round {number + 1}: {variant.name} ...", file=sys.stderr, flush=True)
                found[variant.name].starts.append(variant.run(self.start, out))
                found[variant.name].runs.append(variant.run(self.source, out))
        ours = found[OURS]
        empty = {v.name: v.run(self.empty, self.folder / "out") for v in self.variants}
        figures: Figures = {
            key: value
            for name, key in (
                (BARE, "rows_per_cpu_second_over_inplace_predict"),
                (PANDAS, "over_pandas_dmatrix"),
                (RAY, "over_ray_data"),
                (SPARK, "over_spark"),
            )
            for key, value in ratios(key, ours, found.get(name)).items()
        }
        figures["bit_equal"] = same_bits(self.folder / OURS, self.folder / BARE)
        figures["in_process_over_inplace_predict"] = (
            found[BARE].beyond_start / found[HERE].beyond_start
        )
        figures["empty_run_seconds"] = empty[OURS].seconds
        figures["inplace_predict_empty_run_seconds"] = empty[BARE].seconds
        figures["worker_peak_mb"] = max(cost.worker_peak_mb for cost in ours.runs)
        figures |= self._ten_times()
        show(f"batch, {self.rows:,} rows", list(lines(found, self.rows)), figures)

    def _ten_times(self) -> Figures:
        """Peak memory and the whole ratio with ten times the rows."""
        if self.quick:
            return {"worker_peak_mb_10x": None, "whole_10x_over_inplace_predict": None}
        self.many.mkdir()
        for number in range(10):
            os.link(self.source / "part-0.parquet", self.many / f"part-{number}.parquet")
        ours, bare = (
            variant.run(self.many, self.folder / "out")
            for variant in self.variants
            if variant.name in (OURS, BARE)
        )
        return {
            "worker_peak_mb_10x": ours.worker_peak_mb,
            "whole_10x_over_inplace_predict": bare.cpu_seconds / ours.cpu_seconds,
        }

    def _ours(
        self, name: str, compute: str, digest: str, settings: Settings, server: int
    ) -> Variant:
        def command(source: Path, out: Path) -> list[str]:
            return [
                *(sys.executable, "-m", "flows.batch_predict", "--bundle", digest),
                *("--input", str(source), "--output", str(out), "--allow-empty"),
                *("--compute", compute),
            ]

        return Variant(name, command, environment(settings), servers=(server,))

    def _peer(self, name: str, python: str) -> Variant:
        def command(source: Path, out: Path) -> list[str]:
            return [python, str(SCRIPTS / f"{name}.py"), str(source), str(out), str(self.model)]

        return Variant(name, command, dict(os.environ))


def ratios(key: str, ours: Measured, peer: Measured | None) -> Figures:
    """Rows a CPU-second of ours over a peer's: beyond the start, and of the whole process."""
    if peer is None:
        return {key: None, f"whole_{key}": None}
    return {
        key: peer.beyond_start / ours.beyond_start,
        f"whole_{key}": peer.cpu_seconds / ours.cpu_seconds,
    }


def lines(found: dict[str, Measured], rows: int) -> Iterator[tuple[str, str, str]]:
    """The table: a line a variant."""
    for name, of in found.items():
        seconds = median(cost.seconds for cost in of.runs)
        start = of.cpu_seconds - of.beyond_start
        cpu = f"{of.cpu_seconds:6.2f} CPU-s, {start:5.2f} of them for two rows"
        rate = f"{rows / of.beyond_start:>11,.0f} rows a CPU-s beyond it, {seconds:5.1f} s in all"
        yield name, cpu, rate


def write_input(random: np.random.Generator, rows: Sequence[int], folder: Path) -> None:
    """Parquet files of so many rows of random features, float32, three in a hundred missing."""
    folder.mkdir()
    schema = pa.schema([(name, pa.float32()) for name in NAMES])
    for number, count in enumerate(rows):
        with pq.ParquetWriter(folder / f"part-{number}.parquet", schema) as writer:
            for first in range(0, count, ROWS_A_GROUP):
                features = features_of(random, min(ROWS_A_GROUP, count - first))
                group = pa.table(list(features), schema=schema)
                writer.write_table(group, row_group_size=ROWS_A_GROUP)
    os.sync()  # what was just written may still be on its way to the disk


def features_of(random: np.random.Generator, rows: int) -> np.ndarray:
    """Features, float32, shape (FEATURES, rows); NaN is missing."""
    found = random.standard_normal((FEATURES, rows), dtype=np.float32)
    found[random.random(found.shape, dtype=np.float32) < 0.03] = np.nan
    return found


def make_bundle(settings: Settings, random: np.random.Generator, path: Path) -> str:
    """Train a model of the benchmark's size; return the digest of a bundle that reads the input."""
    import xgboost

    from serving.runtimes.xgboost import XGBoostRuntime

    features = features_of(random, 100_000)
    score = np.nansum(features[:6], axis=0) + np.nan_to_num(features[6] * features[7])
    labels = score + random.standard_normal(len(score)) > 0
    parameters = {"objective": "binary:logistic", "max_depth": DEPTH, "seed": 0, "eta": 0.1}
    data = xgboost.QuantileDMatrix(features.T, labels)
    model = bytes(xgboost.train(parameters, data, num_boost_round=TREES).save_raw("ubj"))
    path.write_bytes(model)
    golden = np.ascontiguousarray(features.T[:64])
    return write_bundle(settings, model, golden, XGBoostRuntime(model).predict(golden))


def write_bundle(
    settings: Settings, model: bytes, golden: np.ndarray, predictions: np.ndarray
) -> str:
    """A bundle without a feature store: its inputs are the columns of what it scores."""
    from datetime import UTC, datetime

    from headrace import bundle
    from headrace.plan import FeaturePlan
    from headrace.spec import DriftPolicy, RequestField
    from monitoring.profile import reference_profile
    from serving.predictor import golden_table

    epoch = datetime(2026, 1, 1, tzinfo=UTC)
    manifest = bundle.BundleManifest(
        model="benchmark",
        task="binary",
        runtime="xgboost",
        plan=FeaturePlan(
            project="benchmark",
            feature_service="none",
            definitions_sha256="",
            event_timestamp="at",
            views=(),
            request=tuple(RequestField(name=n, description="random") for n in NAMES),
            inputs_from_request=tuple(NAMES),
            transforms=(),
        ),
        drift=DriftPolicy(),
        lineage=bundle.Lineage(
            code_revision="unknown",
            training_set_sha256="",
            training_rows=100_000,
            trained_from=epoch,
            trained_until=epoch,
            tested_until=epoch,
        ),
        metrics={},
        parameters={"rounds": TREES, "max_depth": DEPTH},
        files={},
    )
    columns = dict(zip(NAMES, golden.T, strict=True))
    profile = reference_profile({**columns, bundle.OUTPUT: predictions})
    files = {
        bundle.model_file("xgboost"): model,
        bundle.GOLDEN: bundle.arrow_bytes(golden_table(NAMES, golden, predictions)),
        bundle.REFERENCE: profile.to_bytes(),
        bundle.CARD: b"A model of the benchmark.\n",
    }
    return bundle.write_bundle(settings.uri("bundles"), manifest, files)


def same_bits(ours: Path, bare: Path) -> bool:
    """Whether both made the same float32 predictions in the same order."""
    from tasks.batch.commit import read_predictions

    mine = read_predictions(str(ours))["prediction"].to_numpy()
    theirs = pq.read_table(bare)["prediction"].to_numpy()
    return mine.dtype == theirs.dtype and mine.tobytes() == theirs.tobytes()


def has(python: str, module: str) -> bool:
    """Whether an interpreter has a module."""
    find = f"import importlib.util as u; raise SystemExit(u.find_spec({module!r}) is None)"
    return subprocess.run([python, "-c", find], check=False).returncode == 0


if __name__ == "__main__":
    main()
