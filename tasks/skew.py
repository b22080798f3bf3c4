"""The steps of a skew check: take the log, replay it against the point-in-time join, compare."""

import pyarrow as pa
import pyarrow.compute as pc
from prefect.artifacts import create_table_artifact
from prefect.logging import get_run_logger

from headrace import storage
from headrace.bundle import read_bundle
from headrace.settings import Settings
from headrace.spec import Part
from headrace.window import Window
from monitoring.skew import SkewReport, compare, rows_with_reads, sentence
from tasks.logged import logged_rows
from tasks.step import step


class SkewOfWindow(Part):
    """What was found in a window of an endpoint's log, bundle by bundle."""

    endpoint: str
    window: Window
    reports: tuple[SkewReport, ...]

    @property
    def skewed(self) -> bool:
        """True if anything mismatches."""
        return any(report.skewed for report in self.reports)

    @property
    def sentence(self) -> str:
        """The verdict."""
        return sentence(self.reports)


@step("replay the log of {endpoint} {window}")
def replay_log(settings: Settings, endpoint: str, window: Window) -> SkewOfWindow:
    """Compare what models saw online with the join of the same rows.

    Safe to run twice: it writes nothing but its artifacts.

    Raises:
        NothingLogged: if the endpoint answered nobody in the window.
        BundleRefused: if a bundle that answered is not there any more, or damaged.
    """
    logger = get_run_logger()
    log = logged_rows(settings, endpoint, window)
    reports = []
    for digest in sorted(pc.unique(log["digest"]).to_pylist()):
        rows = log.filter(pc.equal(log["digest"], digest))
        logger.info("replaying %s rows of bundle %s", f"{rows.num_rows:,}", digest[:12])
        reports.append(replay_bundle(settings, digest, rows))
    found = SkewOfWindow(endpoint=endpoint, window=window, reports=tuple(reports))
    _show(found)
    logger.info("%s", found.sentence)
    return found


@step("write the skew report of {found.endpoint}")
def write_report(settings: Settings, found: SkewOfWindow) -> str:
    """Write what was found as JSON and return its address. Safe to run twice: it is replaced."""
    uri = settings.uri("reports", found.endpoint, f"skew-{found.window}.json")
    storage.write_atomic(uri, found.model_dump_json(indent=1).encode())
    return uri


def replay_bundle(settings: Settings, digest: str, log: pa.Table) -> SkewReport:
    """Compare the logged rows of one bundle with their join."""
    from featurestore.join.replay import replay, versions

    plan = read_bundle(settings.uri("bundles"), digest).manifest.plan
    root = settings.uri("offline")
    asked = log.filter(pa.array(rows_with_reads(plan, log)))
    found = replay(asked, plan, root)
    return compare(
        plan,
        asked,
        found.joined,
        digest=digest,
        versions_of=lambda view: versions(root, view, asked, found.joined),
        recomputed=found.recomputed,
        changed_transforms=found.changed_transforms,
        rows_of_raw_features=log.num_rows - asked.num_rows,
    )


def _show(found: SkewOfWindow) -> None:
    key = found.endpoint.replace("_", "-").replace(".", "-")
    create_table_artifact(
        table=[
            {"bundle": report.digest[:12]}
            | finding.model_dump(mode="json")
            | {"share": f"{finding.share:.3%}"}
            for report in found.reports
            for finding in report.findings
        ],
        key=f"{key}-skew",
        description=found.sentence,
    )
    create_table_artifact(
        table=[
            {"bundle": report.digest[:12]} | example.model_dump(mode="json")
            for report in found.reports
            for example in report.examples
        ],
        key=f"{key}-skew-examples",
        description="Some rows of each view and cause, to be found in the log by request id.",
    )
