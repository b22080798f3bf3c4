"""Batches without Prefect and without a model, in child processes that are to be killed.

``python lean.py`` reads a JSON job a line and runs it in forks of this process, which has imported
everything already, so that hundreds of kills cost seconds. A job says the output and, as a real
batch does, takes the lease, scores the shards that are not finished, and commits. Prints how the
children ended, as JSON.
"""

import json
import os
import resource
import signal
import sys

import numpy as np
import pyarrow as pa

from headrace.errors import HeadraceError
from tasks.batch import commit
from tasks.batch.lease import held
from tasks.batch.output import ShardRecord, ShardWriter, finished_shard

SHARDS = 8
BATCHES = 3
BATCH_ROWS = 200
ROWS = SHARDS * BATCHES * BATCH_ROWS
COMMITTED, FOUND_COMMITTED, FAILED = 0, 10, 1

_CHANGES = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.chmod"}
"""What Python tells an audit hook of that changes files, beside opening one to write."""


def run(output: str, seconds: float) -> int:
    """The whole batch, or what is left of it."""
    with held(output, owner="lean", seconds=seconds) as lease:
        if commit.is_committed(output, "lean"):
            return FOUND_COMMITTED
        records = [_score(output, shard) for shard in range(SHARDS)]
        commit.commit(
            output,
            lease=lease,
            run="lean",
            model="lean",
            bundle="0" * 64,
            input="numbers",
            rows=ROWS,
            shards=records,
        )
    return COMMITTED


def rows_in() -> list[int]:
    """Every row that goes in."""
    return list(range(ROWS))


def _score(output: str, shard: int) -> ShardRecord:
    name = f"{shard:04x}"
    done = finished_shard(output, name)
    if done:
        return done
    with ShardWriter(output, name) as writer:
        for batch in range(BATCHES):
            first = (shard * BATCHES + batch) * BATCH_ROWS
            rows = np.arange(first, first + BATCH_ROWS)
            bad = rows % 50 == 7
            rejected = pa.table({"row": rows[bad], "reason": ["not a good number"] * bad.sum()})
            writer.add(predicted=pa.table({"row": rows[~bad]}), rejected=rejected)
    return writer.record


count = 0
"""How often this process has changed a file of its output."""


def _die_at(change: int, output: str) -> None:
    """Kill this process just before it changes files for the given time."""

    def hook(event: str, arguments: tuple) -> None:
        global count  # noqa: PLW0603  (a hook is for the whole process, and so is the count)
        opens = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if (opens or event in _CHANGES) and output in str(arguments[0]):
            count += 1
            if count == change:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _child(job: dict) -> int:
    if job.get("kill_at"):
        _die_at(job["kill_at"], job["output"])
    if job.get("file_bytes"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["file_bytes"],) * 2)
    told = {}
    try:
        return run(job["output"], job.get("seconds", 5.0))
    except HeadraceError as error:
        told["error"] = f"{type(error).__name__}: {error}"
        return FAILED
    finally:
        os.write(job["told"], json.dumps(told | {"changes": count}).encode() + b"\n")


def _run_job(job: dict) -> dict:
    told, job["told"] = os.pipe()
    children = []
    for _ in range(job.get("processes", 1)):
        child = os.fork()
        if child == 0:
            os._exit(_child(job))
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    os.close(job["told"])
    with os.fdopen(told) as lines:
        last = [json.loads(line) for line in lines]
    return {"codes": codes, **(last[-1] if last else {})}


def main() -> None:
    """Serve jobs until stdin ends."""
    pa.array([0])  # loads what Arrow loads late, or each child would
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(json.dumps(_run_job(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
