"""Check a certificate: whether what it was made of, and what came out, is still what it says."""

from collections.abc import Iterator

import pyarrow as pa

from featurestore.join.certificate import Certificate
from featurestore.join.fingerprint import fingerprint
from featurestore.join.reach import read_again
from headrace.plan import FeaturePlan


def verify(
    certificate: Certificate,
    *,
    table: pa.Table | None = None,
    labels: pa.Table | None = None,
    plan: FeaturePlan | None = None,
    offline_uri: str | None = None,
) -> tuple[str, ...]:
    """Say what differs from a certificate, a sentence each; nothing if all agrees.

    Args:
        certificate: what to hold the rest against.
        table: the historical features that came out.
        labels: the rows that went in.
        plan: what is read now.
        offline_uri: where the sources lie; each is read again as far as it was in reach.

    Raises:
        SchemaMismatch, UnknownName, StorageFailed: if a source can no longer be read.
    """
    return (
        *_counts(certificate),
        *_table(certificate, table),
        *_labels(certificate, labels),
        *_plan(certificate, plan),
        *_sources(certificate, offline_uri),
    )


def _counts(certificate: Certificate) -> Iterator[str]:
    if certificate.rows_in != certificate.rows_out:
        yield f"{certificate.rows_in} rows went in and {certificate.rows_out} came out"
    for view in certificate.views:
        if (counted := sum(view.reasons.values())) != certificate.rows_in:
            yield f"view {view.read.view} accounts for {counted} of {certificate.rows_in} rows"


def _table(certificate: Certificate, table: pa.Table | None) -> Iterator[str]:
    if table is None:
        return
    if table.num_rows != certificate.rows_out:
        yield f"the table has {table.num_rows} rows, not {certificate.rows_out}"
    if fingerprint(table) != certificate.result_sha256:
        yield "the table's values or columns are not those that came out of the join"


def _labels(certificate: Certificate, labels: pa.Table | None) -> Iterator[str]:
    if labels is None:
        return
    if labels.num_rows != certificate.rows_in:
        yield f"there are {labels.num_rows} label rows, not {certificate.rows_in}"
    if fingerprint(labels) != certificate.labels_sha256:
        yield "the label rows are not those that went in"


def _plan(certificate: Certificate, plan: FeaturePlan | None) -> Iterator[str]:
    if plan is None:
        return
    if plan.definitions_sha256 != certificate.definitions_sha256:
        yield "the feature definitions have changed"
    now = {view.view: view for view in plan.views}
    then = {view.read.view: view.read for view in certificate.views}
    for name in sorted(now.keys() | then.keys()):
        if now.get(name) != then.get(name):
            yield f"view {name} is read otherwise"
    transforms = {pin.name: pin.source_sha256 for pin in plan.transforms}
    for name in sorted(transforms.keys() | certificate.transforms.keys()):
        if transforms.get(name) != certificate.transforms.get(name):
            yield f"transform {name} has another source"


def _sources(certificate: Certificate, offline_uri: str | None) -> Iterator[str]:
    if offline_uri is None:
        return
    for view in certificate.views:
        now = read_again(offline_uri, view.read, view.source)
        if now.rows != view.source.rows:
            yield f"table {now.table} has {now.rows} rows in reach, not {view.source.rows}"
        elif now != view.source:
            yield f"table {now.table} has other values in reach"
