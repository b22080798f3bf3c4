"""R10: a single bit flipped, or the end cut off, in every kind of file that is kept.

Parts, records, manifests, bundles and releases: each is refused before a parser sees it, and none
is served.
"""

import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace import release
from headrace.bundle import read_bundle
from headrace.errors import HeadraceError
from tasks.batch.commit import commit, read_manifest
from tasks.batch.lease import held
from tasks.batch.output import finished_shard, write_shard
from tasks.batch.parts import read_part


@pytest.fixture
def kept(settings, plain, numbers, tmp_path) -> dict[str, tuple[list[Path], Callable[[], object]]]:
    """Each kind of file: where some lie, and how they are read; None where it counts as absent."""
    output = str(tmp_path / "output")
    record = write_shard(
        output, "0a1b", predicted=numbers(3_000, seed=1), rejected=numbers(10, seed=2)
    )
    with held(output, owner="test") as lease:
        manifest = commit(
            output,
            lease=lease,
            run="run",
            model="tiny",
            bundle=plain,
            input="x",
            rows=3_010,
            shards=[record],
        )
    release.move_release(
        settings.storage_uri, "tiny", champion=plain, by="me", reason="because", expected=0
    )
    folder = Path(settings.uri("bundles", plain))
    releases = Path(settings.uri("releases", "tiny"))
    out = Path(output)
    return {
        "part": (
            [out / "parts" / file.name for file in record.files],
            lambda: [read_part(output, file) for file in record.files],
        ),
        "record": ([out / "shards" / "0a1b.json"], lambda: finished_shard(output, "0a1b")),
        "manifest": (
            list((out / "manifests").glob("*.json")),
            lambda: read_manifest(output, manifest.revision),
        ),
        "bundle": (list(folder.iterdir()), lambda: read_bundle(settings.uri("bundles"), plain)),
        "release": (
            list(releases.glob("*.json")),
            lambda: release.current_release(settings.storage_uri, "tiny"),
        ),
    }


def rot(path: Path, dice: random.Random, read: Callable[[], object], *, cut: bool) -> str:
    """Damage a file, read it, mend it: ``refused``, or ``served``."""
    data = path.read_bytes()
    at = dice.randrange(len(data))
    changed = bytearray(data[:at] if cut else data)
    if not cut:
        changed[at] ^= 1 << dice.randrange(8)
    path.write_bytes(changed)
    try:
        return "refused" if read() is None else "served"
    except HeadraceError:
        return "refused"
    finally:
        path.write_bytes(data)


def check(kept, flips: int, cuts: int, scorecard) -> None:
    seed = int(os.environ.get("FAULTS_SEED", "10"))
    print(f"FAULTS_SEED={seed}")
    dice = random.Random(seed)
    outcomes: Counter[str] = Counter()
    for kind, (paths, read) in kept.items():
        assert read() is not None, kind
        for number in range((flips + cuts) // len(kept)):
            cut = number % (flips // cuts + 1) == 0
            outcomes[f"{kind} {rot(dice.choice(paths), dice, read, cut=cut)}"] += 1
    served = sum(count for what, count in outcomes.items() if "served" in what)
    refused = outcomes.total() - served
    scorecard("R10", passed=not served, figure=f"{refused} refused, {served} served", seed=seed)
    assert not served, outcomes


def test_300_damages_are_refused_and_none_is_served(kept, scorecard):
    check(kept, 250, 50, scorecard)


@pytest.mark.soak
def test_1200_damages_are_refused_and_none_is_served(kept, scorecard):
    check(kept, 1000, 200, scorecard)


def test_plain_parquet_with_a_flipped_bit_is_served(tmp_path):
    """The control: most flipped bits of a Parquet file change a value, and nobody notices."""
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"x": range(2000)}), path, compression="none", use_dictionary=False)

    def read() -> object:
        try:
            return pq.read_table(path)
        except (pa.ArrowException, OSError) as error:
            raise HeadraceError(str(error)) from error

    dice = random.Random(1)
    outcomes = Counter(rot(path, dice, read, cut=False) for _ in range(100))
    assert outcomes["served"] > 50
