"""Where ``--to`` points. Credentials come from the environment alone, never from the URL."""

import re
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from headrace.spec import Part
from tasks.batch.deliver.errors import DeliveryRefused

_FORMS = (
    "Write postgresql://user@host:5432/database/schema.table or bigquery://project/dataset/table."
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_PROJECT = re.compile(r"[a-z][a-z0-9:.-]{4,61}[a-z0-9]")
_TABLE = re.compile(r"[A-Za-z0-9_-]{1,1024}(\$[0-9]{4,10})?")
_SECRETS = {"password", "passfile", "sslpassword", "key", "secret", "token"}


class Target(Part):
    """A table of another store."""

    kind: Literal["postgresql", "bigquery"]
    database: str
    """PostgreSQL: a connection URI without a password. BigQuery: the project."""
    schema_name: str
    """PostgreSQL: the schema. BigQuery: the dataset."""
    table: str
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """The target as it is shown; there is no secret in it."""
        if self.kind == "bigquery":
            return f"bigquery://{self.database}/{self.schema_name}/{self.table}"
        return f"{self.database}/{self.schema_name}.{self.table}"


class Delivery(Part):
    """What was delivered."""

    to: str
    run: str
    rows: int
    was_done: bool
    """An earlier delivery of the same run had done it."""


def parse_target(to: str) -> Target:
    """Understand a ``--to``.

    Raises:
        DeliveryRefused: if it is none, or holds a secret.

    >>> str(parse_target("postgresql://ann@db.example/flights/scores.delay"))
    'postgresql://ann@db.example/flights/scores.delay'
    >>> parse_target("bigquery://my-project/scores/delay").table
    'delay'
    """
    parts = urlsplit(to)
    shown = to.replace(f":{parts.password}@", ":...@") if parts.password else to
    secrets = {name for name, _ in parse_qsl(parts.query) if name.lower() in _SECRETS}
    if parts.password or secrets:
        shown = shown.split("?")[0]
        remedy = "Take it out, and set PGPASSWORD (or a .pgpass file) in the environment."
        raise DeliveryRefused(shown, "the URL holds a password or secret", remedy)
    if parts.scheme in ("postgresql", "postgres"):
        return _postgresql(to, parts)
    if parts.scheme == "bigquery":
        return _bigquery(to, parts)
    raise DeliveryRefused(to, f"{parts.scheme or 'no scheme'} is not known", _FORMS)


def _postgresql(to: str, parts: SplitResult) -> Target:
    names = [unquote(name) for name in parts.path.strip("/").split("/")]
    if len(names) != 2:
        raise DeliveryRefused(to, "it does not name a database and a table", _FORMS)
    schema, _, table = names[1].rpartition(".")
    schema = schema or "public"
    for name in (schema, table):
        if not _NAME.fullmatch(name):
            remedy = "Write letters, digits and '_', 63 at most."
            raise DeliveryRefused(to, f"{name!r} is no name of a schema or table", remedy)
    return Target(
        kind="postgresql",
        database=f"postgresql://{parts.netloc}/{parts.path.strip('/').split('/')[0]}",
        schema_name=schema,
        table=table,
        options=tuple(parse_qsl(parts.query)),
    )


def _bigquery(to: str, parts: SplitResult) -> Target:
    names = [parts.netloc, *parts.path.strip("/").split("/")]
    if len(names) != 3:
        raise DeliveryRefused(to, "it does not name a project, a dataset and a table", _FORMS)
    project, dataset, table = names
    for name, form, kind in ((project, _PROJECT, "project"), (table, _TABLE, "table")):
        if not form.fullmatch(name):
            raise DeliveryRefused(to, f"{name!r} is no name of a {kind}", _FORMS)
    if not re.fullmatch(r"[A-Za-z0-9_]{1,1024}", dataset):
        raise DeliveryRefused(to, f"{dataset!r} is no name of a dataset", _FORMS)
    return Target(
        kind="bigquery",
        database=project,
        schema_name=dataset,
        table=table,
        options=tuple(parse_qsl(parts.query)),
    )
