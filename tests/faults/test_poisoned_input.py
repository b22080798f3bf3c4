"""R21: damaged Parquet files, changed schemas and ratio bombs, beside good files.

Every bad file is named, no row of a good file is lost, no value is silently another one, and memory
stays within 512 MB.
"""

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.batch.inputs import InputBroken, cut, open_dataset, read_batches

BUDGET_MB = 512
COLUMNS = ["id", "value", "name", "at"]


def rows(first: int, count: int) -> pa.Table:
    ids = np.arange(first, first + count)
    moments = pa.array(ids * 3_600_000_000, pa.timestamp("us", "UTC"))
    return pa.table({"id": ids, "value": ids / 7, "name": [f"n{i}" for i in ids], "at": moments})


def write(path: Path, table: pa.Table) -> None:
    pq.write_table(table, path, row_group_size=200, write_page_checksum=True, compression="zstd")


def damage(data: bytes, dice: random.Random) -> tuple[str, bytes]:
    """One way in which a file breaks, and the file after it."""
    kind = dice.choice(["bit", "bit", "bit", "cut", "hole", "zeros", "shift", "empty", "text"])
    at = dice.randrange(len(data))
    if kind == "bit":
        changed = bytearray(data)
        changed[at] ^= 1 << dice.randrange(8)
        return kind, bytes(changed)
    if kind == "cut":
        return kind, data[:at]
    if kind == "hole":  # a block that was never written
        length = min(512, len(data) - at)
        return kind, data[:at] + bytes(length) + data[at + length :]
    if kind == "zeros":
        return kind, data[:at] + bytes(len(data) - at)
    if kind == "shift":  # bytes lost in the middle, the footer whole
        return kind, data[:at] + data[at + dice.randrange(1, 64) :]
    return kind, b"" if kind == "empty" else b"id,value,name\n1,2,3\n" * 9


def outcome(path: Path) -> str:
    """``refused``, or ``read`` with the rows that the file had; anything else is an error."""
    original = rows(0, 600)
    try:
        dataset = open_dataset(str(path))
        for piece in cut(dataset, 10_000):
            tables = [batch for _, batch in read_batches(piece, COLUMNS, batch_rows=128)]
            found = pa.concat_tables(tables)
            if not found.equals(original.select(COLUMNS)):
                return "WRONG"
    except InputBroken as broken:
        names_all = broken.uri == str(path) and broken.remedy in str(broken)
        return "refused" if names_all else "refused without a name"
    return "read"


def damaged_files(folder: Path, count: int, seed: int) -> tuple[Counter, list[str]]:
    """How many files were refused, or read rightly because the damage was where nothing is."""
    dice = random.Random(seed)
    write(folder / "whole.parquet", rows(0, 600))
    data = (folder / "whole.parquet").read_bytes()
    outcomes = Counter()
    notes = []
    for number in range(count):
        kind, changed = damage(data, dice)
        if changed == data:
            continue
        path = folder / f"{number}.parquet"
        path.write_bytes(changed)
        found = outcome(path)
        outcomes[found] += 1
        if found != "refused":
            notes.append(f"{kind} {number}: {found}")
    return outcomes, notes


def check_damaged(folder: Path, count: int, scorecard) -> None:
    seed = int(os.environ.get("FAULTS_SEED", "21"))
    print(f"FAULTS_SEED={seed}")
    outcomes, notes = damaged_files(folder, count, seed)
    figure = f"{count} damaged files: {outcomes['refused']} named, {outcomes['read']} read rightly"
    is_right = outcomes.keys() <= {"refused", "read"}
    scorecard("R21", passed=is_right, figure=f"{figure}, {outcomes['WRONG']} wrong", seed=seed)
    assert is_right, notes
    assert outcomes["read"] <= count / 8, notes  # bits of page headers and of what nobody reads


def test_damaged_files_are_refused_and_no_value_is_another_one(tmp_path, scorecard):
    check_damaged(tmp_path, 40, scorecard)


@pytest.mark.soak
def test_300_damaged_files_are_refused_and_no_value_is_another_one(tmp_path, scorecard):
    check_damaged(tmp_path, 300, scorecard)


def test_damaged_files_beside_good_ones_are_named_and_no_good_row_is_lost(tmp_path, scorecard):
    dice = random.Random(3)
    good = {f"good-{n}.parquet": rows(n * 600, 600) for n in range(3)}
    for name, table in good.items():
        write(tmp_path / name, table)
    data = (tmp_path / "good-0.parquet").read_bytes()
    for number in range(30):
        (tmp_path / f"bad-{number:02d}.parquet").write_bytes(damage(data, dice)[1])
    dataset = open_dataset(str(tmp_path), bad_files="skip", columns=COLUMNS)
    named = {Path(file.uri).name for file in dataset.quarantined}
    found = [
        pa.concat_tables([batch for _, batch in read_batches(piece, COLUMNS, batch_rows=128)])
        for piece in cut(dataset, 10_000)
    ]
    # A file whose damage lies where nobody reads has the rows of the file it was made from.
    read_rightly = len(found) - len(good)
    is_right = not named & good.keys() and len(named) + read_rightly == 30
    is_right &= all(table.num_rows == 600 for table in found)
    figure = f"30 damaged files beside 3 good ones: {len(named)} named, {read_rightly} read rightly"
    scorecard("R21", passed=is_right, figure=figure)
    assert is_right, figure
    assert read_rightly <= 4
    for table, wanted in zip(found[-3:], good.values(), strict=True):
        assert table.equals(wanted)


def test_without_checksums_a_flipped_bit_is_read_as_another_value(tmp_path):
    """The control: what page checksums are for."""
    table = rows(0, 600)
    pq.write_table(table, tmp_path / "x.parquet", compression="none", use_dictionary=False)
    data = bytearray((tmp_path / "x.parquet").read_bytes())
    data[1000] ^= 1
    (tmp_path / "x.parquet").write_bytes(data)
    assert outcome(tmp_path / "x.parquet") == "WRONG"


def changes() -> dict[str, pa.Table]:
    """Twenty ways in which the schema of a file is another one."""
    good = rows(0, 50)

    def recast(name: str, type_: pa.DataType) -> pa.Table:
        return good.set_column(good.schema.get_field_index(name), name, good[name].cast(type_))

    def renamed(**names: str) -> pa.Table:
        return good.rename_columns([names.get(name, name) for name in good.column_names])

    def all_null(name: str, type_: pa.DataType) -> pa.Table:
        index = good.schema.get_field_index(name)
        return good.set_column(index, name, pa.nulls(good.num_rows, type_))

    text = good.set_column(1, "value", pa.array([str(i) for i in range(50)]))
    return {
        "renamed id": renamed(id="ident"),
        "renamed value": renamed(value="val"),
        "renamed by case": renamed(name="Name"),
        "two names swapped": renamed(id="value", value="id"),
        "dropped id": good.drop_columns("id"),
        "dropped value": good.drop_columns("value"),
        "dropped two": good.drop_columns(["value", "name"]),
        "added one": good.append_column("more", pa.nulls(50, pa.int64())),
        "added first": good.add_column(0, "more", pa.nulls(50, pa.string())),
        "retyped to int32": recast("id", pa.int32()),
        "retyped to double": recast("id", pa.float64()),
        "retyped to float": recast("value", pa.float32()),
        "retyped to text": text,
        "retyped to decimal": recast("id", pa.decimal128(20, 0)),
        "retyped to binary": recast("name", pa.binary()),
        "zone dropped": recast("at", pa.timestamp("us")),
        "zone changed": recast("at", pa.timestamp("us", "America/New_York")),
        "unit changed": recast("at", pa.timestamp("ms", "UTC")),
        "all null of another type": all_null("value", pa.string()),
        "nested": good.set_column(1, "value", pa.array([[1.0]] * 50)),
    }


def test_every_changed_schema_is_named_and_no_good_row_is_lost(tmp_path, scorecard):
    changed = changes()
    for number in range(3):
        write(tmp_path / f"good-{number}.parquet", rows(number * 50, 50))
    all_null = rows(150, 50).set_column(2, "name", pa.nulls(50))
    write(tmp_path / "good-3.parquet", all_null)  # nothing but nulls is no change
    named = 0
    for what, table in changed.items():
        bad = tmp_path / f"bad {what}.parquet"
        write(bad, table)
        dataset = open_dataset(str(tmp_path), bad_files="skip")
        named += [file.uri for file in dataset.quarantined] == [str(bad)]
        assert dataset.rows == 200, what
        bad.unlink()
    figure = f"{named} of {len(changed)} schema changes named, 0 good rows lost"
    scorecard("R21", passed=named == 20, figure=figure)
    assert named == len(changed) == 20


def bombs(folder: Path) -> dict[str, Path]:
    """Files of some kilobytes that become gigabytes, or hundreds of megabytes at one time."""
    zeros = np.zeros(10_000_000, np.int64)
    shared = pa.DictionaryArray.from_arrays(np.zeros(300_000, np.int32), ["x" * 2000])
    alike = pa.array(["x" * 2000 + str(i) for i in range(20_000)])
    one_page = {"data_page_size": 1 << 30, "max_rows_per_page": len(zeros)}
    made = {
        "long runs": ({"id": zeros}, {}),
        "shared": ({"id": shared}, {}),
        "one page": ({"id": zeros}, {"use_dictionary": False, **one_page}),
        "alike": (
            {"id": alike},
            {"use_dictionary": False, "column_encoding": {"id": "DELTA_BYTE_ARRAY"}},
        ),
    }
    for name, (columns, options) in made.items():
        pq.write_table(
            pa.table(columns),
            folder / f"{name}.parquet",
            compression="zstd",
            row_group_size=len(zeros),
            write_batch_size=len(zeros),
            **options,
        )
    return {name: folder / f"{name}.parquet" for name in made}


_READ = r"""
import json, pathlib, re, sys
from tasks.batch.inputs import InputBroken, cut, open_dataset, read_batches
found = {}
for path in sys.argv[1:]:
    rows = 0
    try:
        for piece in cut(open_dataset(path), 10**9):
            for _, batch in read_batches(piece, ["id"], batch_rows=65_536):
                rows += batch.num_rows
        found[path] = rows
    except InputBroken as broken:
        found[path] = str(broken)
    # Not getrusage: a child's maximum begins with its parent's.
    status = pathlib.Path("/proc/self/status").read_text()
    peak = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) // 1024
    print(path, peak, file=sys.stderr)
print(json.dumps([found, peak]))
"""


def test_small_files_that_become_large_stay_within_the_budget(tmp_path, scorecard):
    paths = bombs(tmp_path)
    command = [sys.executable, "-c", _READ, *map(str, paths.values())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found, peak_mb = json.loads(done.stdout)
    print(done.stderr)
    kb = sum(path.stat().st_size for path in paths.values()) // 1000
    figure = f"{len(paths)} bombs, {kb} kB in all: peak {peak_mb} MB"
    scorecard("R21", passed=peak_mb < BUDGET_MB, figure=figure)
    assert peak_mb < BUDGET_MB, done.stderr
    assert "its pages become 80 MB in memory" in found.pop(str(paths["one page"]))
    assert list(found.values()) == [10_000_000, 300_000, 20_000]
