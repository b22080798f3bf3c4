"""R8: a whole batch on S3 (input, bundle, shards, lease, manifest) while S3 fails.

No byte is silently wrong, no row is lost, no upload is left behind, and it takes no more than three
times as long and a minute.
"""

import os
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace import storage
from headrace.settings import Settings
from tasks.batch import commit as commits
from tasks.batch.lease import held
from tasks.batch.plan import Files, Options, make_plan
from tasks.batch.shards import score_shard
from tests.faults.proxy import MODES, Fault

FILES, ROWS = 4, 300


@pytest.fixture
def settings(tmp_path, faulty_s3):
    """Everything on S3: bundles, input, output."""
    return Settings(home=tmp_path / "home", storage=faulty_s3)


@pytest.fixture
def world(settings, faulty_s3, plain, numbers):
    """The settings, the bundle's digest, and the URL of the input."""
    for number in range(FILES):
        sink = pa.BufferOutputStream()
        pq.write_table(numbers(ROWS, seed=number), sink, row_group_size=100)
        storage.write_atomic(f"{faulty_s3}/input/{number}.parquet", sink.getvalue().to_pybytes())
    return settings, plain, f"{faulty_s3}/input"


def run_batch(world, output):
    """Plan, score and commit; the manifest and the seconds it took."""
    settings, digest, uri = world
    begun = time.monotonic()
    options = Options(rows_per_shard=150)
    plan = make_plan(settings, Files(uri=uri), options, digest=digest, output=output)
    with held(output, owner="test") as lease:
        records = [score_shard(settings, plan.job, shard) for shard in plan.shards]
        manifest = commits.commit(
            output,
            lease=lease,
            run=plan.run,
            model=plan.model,
            bundle=digest,
            input=uri,
            rows=plan.rows,
            shards=records,
        )
    return manifest, time.monotonic() - begun


def check(world, root, proxy, faults, scorecard):
    """Run the batch with and without the faults; both give the same rows."""
    _, clean_seconds = run_batch(world, f"{root}/clean")
    with proxy.failing(*faults):
        manifest, seconds = run_batch(world, f"{root}/harmed")
        found = commits.read_predictions(f"{root}/harmed")
    storage.remove_unfinished(root)
    wanted = commits.read_predictions(f"{root}/clean")
    wrong = 0 if found.equals(wanted) else 1
    lost = FILES * ROWS - manifest.predicted - manifest.rejected
    happened = ", ".join(f"{count} x {mode}" for mode, count in sorted(proxy.done.items()))
    figure = f"{happened}: {wrong} wrong, {lost} rows lost, {seconds:.1f} s ({clean_seconds:.1f} s)"
    is_right = not wrong and not lost and seconds <= 3 * clean_seconds + 60
    scorecard("R8", passed=is_right, figure=figure)
    print(figure)
    assert is_right, figure
    assert happened
    assert uploads(root) == []


def test_a_batch_on_s3_is_right_while_everything_fails_now_and_then(
    world, faulty_s3, fault_proxy, scorecard
):
    faults = [Fault(mode, share=0.04, seconds=0.2) for mode in MODES]
    check(world, faulty_s3, fault_proxy, faults, scorecard)


@pytest.mark.soak
@pytest.mark.parametrize("mode", [*MODES, "mixed"])
def test_a_batch_on_s3_is_right_under_each_fault(world, faulty_s3, fault_proxy, mode, scorecard):
    # A stall of 5 s is long: nine of ten requests here take a few milliseconds.
    alone = {mode: 0.05 if mode == "stall" else 0.3}
    shares = dict.fromkeys(MODES, 0.3 / len(MODES)) if mode == "mixed" else alone
    stalls = [] if mode == "stall" else [Fault("stall", share=0.02)]
    faults = [*(Fault(name, share=share) for name, share in shares.items()), *stalls]
    check(world, faulty_s3, fault_proxy, faults, scorecard)


def uploads(uri):
    """The uploads that were begun and never completed."""
    import boto3

    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL_S3"])
    return client.list_multipart_uploads(Bucket=uri.removeprefix("s3://")).get("Uploads", [])
