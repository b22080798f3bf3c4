"""Copies of committed predictions in other stores, made after the commit, once a run.

errors      what can be wrong with a delivery, without a secret in it
target      ``Target``: where ``--to`` points, checked before any work starts
source      the committed rows, part by part, each checked by its hash
postgresql  one COPY in one transaction
bigquery    one load job, named by the run
"""

from tasks.batch.commit import Manifest
from tasks.batch.deliver import bigquery, postgresql
from tasks.batch.deliver.errors import DeliveryFailed, DeliveryRefused
from tasks.batch.deliver.target import Delivery, Target, parse_target

__all__ = [
    "Delivery",
    "DeliveryFailed",
    "DeliveryRefused",
    "Target",
    "deliver",
    "parse_target",
]


def deliver(manifest: Manifest, output: str, to: str) -> Delivery:
    """Copy the predictions of a committed run. Safe to run twice: what is delivered is found so.

    Args:
        manifest: the revision to copy.
        output: where its parts lie.
        to: ``postgresql://user@host/database/schema.table`` or
            ``bigquery://project/dataset/table``.

    Raises:
        DeliveryRefused: if ``to`` cannot be, or the table there does not fit.
        DeliveryFailed: if the store did not take the rows; nothing of them is visible.
        PartRefused: if a part is missing or was changed.
    """
    target = parse_target(to)
    make = postgresql.deliver if target.kind == "postgresql" else bigquery.deliver
    return make(manifest, output, target)
