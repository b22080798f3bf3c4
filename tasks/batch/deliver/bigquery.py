"""Predictions into a BigQuery table: one load job, whose id is made of the run.

A load job is all or nothing, and BigQuery runs a job id once. So whatever happens to a request or
its reply, asking for the job by its id tells what became of it. The rows are appended, with a
column ``run``; a table with a partition decorator (``delay$20130901``) has that partition replaced.

Source: https://cloud.google.com/bigquery/docs/running-jobs#generate-job-id ("a retry with the same
job id is safe"), jobs.insert and jobs.get of the REST reference, v2.
"""

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.healing import Patience
from tasks.batch.commit import Manifest
from tasks.batch.deliver.errors import DeliveryFailed, DeliveryRefused
from tasks.batch.deliver.source import committed_batches, committed_schema
from tasks.batch.deliver.target import Delivery, Target

RUN = "run"
EMULATOR = "BIGQUERY_EMULATOR_HOST"
"""Google's own variable: the address of an emulator, asked without credentials."""
PATIENCE = Patience(attempts=8, seconds=300, first_wait_seconds=0.5, longest_wait_seconds=30)
_POLL_SECONDS = 1.0
_JOB_SECONDS = 6 * 3600  # the longest that BigQuery lets a load job run
_TRIES = 20  # jobs of a run that failed before, each of which used an id up


def deliver(manifest: Manifest, output: str, target: Target) -> Delivery:
    """Load the predictions of a run into a table; made where it is missing.

    Raises:
        DeliveryFailed: if BigQuery cannot be reached, or the job fails.
        DeliveryRefused: if there are no credentials.
        PartRefused: if a part is missing or was changed.
    """
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    try:
        with contextlib.closing(_client(target)) as client:
            return _Load(client, manifest, output, target).done()
    except GoogleAuthError as error:
        remedy = "Set GOOGLE_APPLICATION_CREDENTIALS, or give the machine a service account."
        raise DeliveryRefused(str(target), f"no credentials: {error}", remedy) from error
    except (GoogleAPIError, OSError) as error:
        raise DeliveryFailed(str(target), error) from error


class _Load:
    """The load of one run into one table."""

    def __init__(self, client: Any, manifest: Manifest, output: str, target: Target) -> None:
        self._client, self._manifest, self._output = client, manifest, output
        self._target = target

    def done(self) -> Delivery:
        """What the job of this run did, after it was found or made."""
        schema = committed_schema(self._manifest, self._output)
        if schema is None:
            return self._delivery(0, was_done=False)
        for number in range(_TRIES):
            name = self._job_id(number)
            job = self._find(name)
            is_found = job is not None
            if job is None:
                job = self._insert(name, schema)
            self._await_end(job)
            if not job.error_result:
                return self._delivery(job.output_rows or 0, was_done=is_found)
            if not is_found:
                raise DeliveryFailed(str(self._target), _why(job))
            # A job that failed in an earlier delivery used its id up; what was wrong may be mended.
        raise DeliveryFailed(str(self._target), f"{_TRIES} jobs of run {self._manifest.run} failed")

    def _delivery(self, rows: int, *, was_done: bool) -> Delivery:
        return Delivery(to=str(self._target), run=self._manifest.run, rows=rows, was_done=was_done)

    def _job_id(self, number: int) -> str:
        place = hashlib.sha256(f"{self._output} {self._target}".encode()).hexdigest()[:16]
        return f"headrace_{self._manifest.run}_{place}_{number}"

    def _find(self, name: str) -> Any:
        from google.api_core.exceptions import NotFound

        try:
            return self._again(
                lambda: self._client.get_job(name, location=self._location, retry=None)
            )
        except NotFound:
            return None

    def _insert(self, name: str, schema: pa.Schema) -> Any:
        """Start the job; one that is there already, after a lost reply, is the same job."""
        from google.api_core.exceptions import Conflict

        with _one_file(self._manifest, self._output, schema) as (file, size):

            def send() -> Any:
                try:
                    return self._client.load_table_from_file(
                        file,
                        f"{self._target.database}.{self._target.schema_name}.{self._target.table}",
                        rewind=True,
                        size=size,
                        num_retries=0,  # a lost reply is looked into by _again, not sent blindly
                        job_id=name,
                        location=self._location,
                        job_config=self._config(),
                    )
                except Conflict:
                    return self._client.get_job(name, location=self._location, retry=None)

            return self._again(send)

    def _config(self) -> Any:
        from google.cloud.bigquery import LoadJobConfig, SourceFormat, WriteDisposition

        has_partition = "$" in self._target.table
        return LoadJobConfig(
            source_format=SourceFormat.PARQUET,
            write_disposition=WriteDisposition.WRITE_TRUNCATE
            if has_partition
            else WriteDisposition.WRITE_APPEND,
            labels={"headrace_run": self._manifest.run[:63].lower()},
        )

    def _await_end(self, job: Any) -> None:
        deadline = time.monotonic() + _JOB_SECONDS
        while job.state != "DONE":
            if time.monotonic() > deadline:
                raise DeliveryFailed(str(self._target), f"job {job.job_id} has not ended in 6 h")
            time.sleep(_POLL_SECONDS)
            self._again(lambda: job.reload(retry=None))

    def _again(self, ask: Any) -> Any:
        """Ask, again while it may heal; safe, as a job id runs once."""
        from google.api_core import exceptions
        from requests import exceptions as broken

        heals = (
            *(exceptions.ServerError, exceptions.TooManyRequests, exceptions.RetryError),
            *(broken.ConnectionError, broken.Timeout, broken.ChunkedEncodingError),
            ConnectionError,
        )
        begun = time.monotonic()
        for attempt in range(PATIENCE.attempts):
            try:
                return ask()
            except heals:
                wait = PATIENCE.wait_seconds(attempt)
                is_over = time.monotonic() + wait - begun > PATIENCE.seconds
                if attempt + 1 == PATIENCE.attempts or is_over:
                    raise
                time.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    @property
    def _location(self) -> str | None:
        return dict(self._target.options).get("location")


def _client(target: Target) -> Any:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import bigquery

    if os.environ.get(EMULATOR):
        return bigquery.Client(project=target.database, credentials=AnonymousCredentials())  # type: ignore[no-untyped-call]
    return bigquery.Client(project=target.database)


@contextlib.contextmanager
def _one_file(
    manifest: Manifest, output: str, schema: pa.Schema
) -> Iterator[tuple[IO[bytes], int]]:
    """All parts as one Parquet file of this machine: a load job takes one upload."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        whole = schema.append(pa.field(RUN, pa.string()))
        with pq.ParquetWriter(path, whole, compression="zstd") as writer:
            for batch in committed_batches(manifest, output):
                run = pa.repeat(pa.scalar(manifest.run), batch.num_rows)
                writer.write_batch(pa.RecordBatch.from_arrays([*batch.columns, run], schema=whole))
        with path.open("rb") as file:
            yield file, path.stat().st_size


def _why(job: Any) -> str:
    messages = [error.get("message", "") for error in job.errors or [job.error_result]]
    return f"job {job.job_id} failed: {'; '.join(dict.fromkeys(messages))}"
