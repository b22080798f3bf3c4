"""Predictions into a PostgreSQL table: one COPY in one transaction, once a run.

The table gets the predictions' columns and ``run``. ``headrace_deliveries``, in the same schema,
says which run of which output is in which table. In one transaction the rows of an earlier run of
the same output are deleted, those of this run copied, and the delivery written down: readers see
the old rows or the new ones, and a delivery that died half way left nothing. A run that is written
down is not delivered again; so a reply to COMMIT that was lost is found out by asking.
"""

import io
import time
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.csv as pc

from tasks.batch.commit import Manifest
from tasks.batch.deliver.columns import TEXTS, check_columns, text_schema, types_of
from tasks.batch.deliver.errors import DeliveryFailed, DeliveryRefused
from tasks.batch.deliver.source import committed_batches, committed_schema
from tasks.batch.deliver.target import Delivery, Target

if TYPE_CHECKING:
    import psycopg

DELIVERIES = "headrace_deliveries"
RUN = "run"
_ATTEMPTS = 4
_CONNECT_SECONDS = 10


def deliver(manifest: Manifest, output: str, target: Target) -> Delivery:
    """Copy the predictions of a run into a table; made, with its schema, where it is missing.

    Raises:
        DeliveryRefused: if the table's columns do not fit, or a later run of the same output is
            there already.
        DeliveryFailed: if the server cannot be reached or refuses the rows.
        PartRefused: if a part is missing or was changed.
    """
    import psycopg

    for attempt in range(_ATTEMPTS):
        try:
            with _connection(target) as connection:
                return _deliver(connection, manifest, output, target)
        except psycopg.OperationalError as error:
            # The server went away: perhaps after it committed, which the next attempt finds out.
            if not _may_heal(error) or attempt + 1 == _ATTEMPTS:
                raise DeliveryFailed(str(target), error) from error
            time.sleep(2**attempt / 4)
        except psycopg.Error as error:
            raise DeliveryFailed(str(target), error) from error
    raise AssertionError("the last attempt returns or raises")


def _connection(target: Target) -> "psycopg.Connection[Any]":
    import psycopg

    options = dict(target.options)
    options.setdefault("connect_timeout", str(_CONNECT_SECONDS))
    options.setdefault("application_name", "headrace")
    return psycopg.connect(target.database, **options)  # type: ignore[arg-type]


def _may_heal(error: Exception) -> bool:
    # 28: credentials; 3D: no such database. Waiting does not change these.
    state = getattr(error, "sqlstate", None) or ""
    text = str(error)
    is_refused = "password" in text or "does not exist" in text or "role" in text
    return not state.startswith(("28", "3D", "42")) and not is_refused


def _deliver(
    connection: "psycopg.Connection[Any]", manifest: Manifest, output: str, target: Target
) -> Delivery:
    from psycopg import sql

    place = sql.Identifier(target.schema_name, target.table)
    log = sql.Identifier(target.schema_name, DELIVERIES)
    with connection.transaction():
        _prepare(connection, target, log)
        found = connection.execute(
            sql.SQL(
                "SELECT run, revision, rows FROM {} WHERE table_name = %s AND output = %s"
            ).format(log),
            (target.table, output),
        ).fetchone()
        if found and found[0] == manifest.run:
            return Delivery(to=str(target), run=manifest.run, rows=found[2], was_done=True)
        if found and found[1] > manifest.revision:
            raise DeliveryRefused(
                str(target),
                f"it has revision {found[1]} of {output}, which is newer than {manifest.revision}",
                "Deliver the newest revision.",
            )
        schema = committed_schema(manifest, output)
        rows = 0
        if schema is not None:
            _make_table(connection, target, schema)
            if found:
                connection.execute(
                    sql.SQL("DELETE FROM {} WHERE run = %s").format(place), (found[0],)
                )
            rows = _copy(connection, manifest, output, target, schema)
        connection.execute(
            sql.SQL(
                "INSERT INTO {} (table_name, output, run, revision, rows) "
                "VALUES (%s, %s, %s, %s, %s) ON CONFLICT (table_name, output) DO UPDATE SET "
                "run = excluded.run, revision = excluded.revision, rows = excluded.rows, "
                "delivered_at = now()"
            ).format(log),
            (target.table, output, manifest.run, manifest.revision, rows),
        )
    return Delivery(to=str(target), run=manifest.run, rows=rows, was_done=False)


def _prepare(connection: "psycopg.Connection[Any]", target: Target, log: Any) -> None:
    """Take the table's turn (deliveries into one table wait for each other), and have its log."""
    from psycopg import sql

    name = f"headrace {target.schema_name}.{target.table}"
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (name,))
    schema = sql.Identifier(target.schema_name)
    known = connection.execute(
        "SELECT 1 FROM pg_namespace WHERE nspname = %s", (target.schema_name,)
    ).fetchone()
    if not known:
        connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(schema))
    connection.execute(
        sql.SQL(
            "CREATE TABLE IF NOT EXISTS {} (table_name text, output text, run text NOT NULL, "
            "revision bigint NOT NULL, rows bigint NOT NULL, "
            "delivered_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (table_name, output))"
        ).format(log)
    )


def _make_table(connection: "psycopg.Connection[Any]", target: Target, schema: pa.Schema) -> None:
    from psycopg import sql

    wanted = types_of(str(target), schema) | {RUN: TEXTS}
    has = connection.execute(
        "SELECT column_name, data_type, is_nullable = 'YES' OR column_default IS NOT NULL "
        "OR is_identity = 'YES' FROM information_schema.columns "
        "WHERE table_schema = %s AND table_name = %s",
        (target.schema_name, target.table),
    ).fetchall()
    if has:
        check_columns(str(target), wanted, {name: (type_, free) for name, type_, free in has})
        return
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(types[0]))
        for name, types in wanted.items()
    )
    place = sql.Identifier(target.schema_name, target.table)
    connection.execute(sql.SQL("CREATE TABLE {} ({})").format(place, columns))
    connection.execute(sql.SQL("CREATE INDEX ON {} (run)").format(place))


def _copy(
    connection: "psycopg.Connection[Any]",
    manifest: Manifest,
    output: str,
    target: Target,
    schema: pa.Schema,
) -> int:
    from psycopg import sql

    names = [*schema.names, RUN]
    command = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(
        sql.Identifier(target.schema_name, target.table),
        sql.SQL(", ").join(map(sql.Identifier, names)),
    )
    rows = 0
    with connection.cursor() as cursor, cursor.copy(command) as copy:
        for batch in committed_batches(manifest, output):
            copy.write(_csv(batch, schema, manifest.run))
            rows += batch.num_rows
    return rows


def _csv(batch: pa.RecordBatch, schema: pa.Schema, run: str) -> bytes:
    """Rows as COPY reads them: texts in quotes, nulls as nothing at all."""
    table = pa.Table.from_batches([batch]).cast(text_schema(schema))
    table = table.append_column(RUN, pa.repeat(pa.scalar(run), table.num_rows))
    sink = io.BytesIO()
    pc.write_csv(table, sink, pc.WriteOptions(include_header=False, quoting_style="needed"))
    return sink.getvalue()
