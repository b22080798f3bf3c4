"""Tell people: alerts are recorded, emitted as Prefect events, and posted to the webhook."""

from collections.abc import Sequence

from prefect.events import emit_event
from prefect.logging import get_run_logger

from headrace.settings import Settings
from headrace.spec import Part
from monitoring.alerts import Alert, post_alerts, record_alerts
from tasks.step import step


class Told(Part):
    """Where alerts went."""

    record: str | None = None
    """The file with them; None: there were none."""
    webhook: str | None = None
    """Why the webhook could not be told; None: it was told, there is none, or nothing to tell."""

    @property
    def sentence(self) -> str:
        """What became of them, in words."""
        if self.record is None:
            return "none"
        return (
            f"{self.record}; the webhook was not told: {self.webhook}"
            if self.webhook
            else (self.record)
        )


@step("tell of what was found")
def tell(settings: Settings, alerts: Sequence[Alert]) -> Told:
    """Record alerts, emit each as a Prefect event, and post them to the webhook of the settings.

    Safe to run twice: the record is the same file. Events and posts may come twice, never not at
    all without a word: a webhook that cannot be told is named in the result and in the log.
    """
    record = record_alerts(settings.storage_uri, alerts)
    if record is None:
        return Told()
    logger = get_run_logger()
    for alert in alerts:
        logger.warning("%s", alert.sentence)
        emit_event(
            event=f"headrace.{alert.raised_by}.{alert.kind.replace(' ', '-')}",
            resource={
                "prefect.resource.id": f"headrace.{alert.subject}",
                "prefect.resource.name": alert.subject,
            },
            payload=alert.model_dump(mode="json"),
        )
    url = settings.alert_webhook.get_secret_value()
    failed = post_alerts(url, alerts) if url else None
    if failed:
        logger.error("the webhook of HEADRACE_ALERT_WEBHOOK was not told: %s", failed)
    return Told(record=record, webhook=failed)
