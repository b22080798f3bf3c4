"""Alerts: what somebody must be told, kept as records and sent to a webhook.

A record is one JSON object a line in ``<storage>/alerts/<moment>-<hash>.jsonl``: written whole, and
named by what it holds, so that a repeated run adds nothing. The webhook is told best effort: that
it could not be told is part of the result, never silence.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException

from pydantic import AwareDatetime

from headrace import storage
from headrace.spec import Part

_TIMEOUT_SECONDS = 5.0


class Alert(Part):
    """One thing that somebody must be told."""

    raised_by: str
    """The flow that found it: ``check-features``."""
    kind: str
    subject: str
    """What it is about: ``weather`` or ``weather.wind``."""
    sentence: str
    at: AwareDatetime
    """The moment it is true of."""


def record_alerts(root: str, alerts: Sequence[Alert]) -> str | None:
    """Write alerts below ``<root>/alerts`` and return where; None if there are none.

    Safe to run twice: the same alerts are the same file.
    """
    if not alerts:
        return None
    data = b"".join(alert.model_dump_json().encode() + b"\n" for alert in alerts)
    latest = max(alert.at for alert in alerts)
    name = f"{latest:%Y%m%dT%H%M%SZ}-{storage.sha256(data)[:12]}.jsonl"
    uri = f"{root}/alerts/{name}"
    storage.write_atomic(uri, data)
    return uri


def post_alerts(
    url: str, alerts: Sequence[Alert], *, timeout_seconds: float = _TIMEOUT_SECONDS
) -> str | None:
    """POST alerts to a webhook; why it could not be told, or None if it was.

    The body is ``{"text": ..., "alerts": [...]}``: chat servers show the text, programs take the
    list. The reason never names the URL, which may hold a secret.
    """
    lines = [f"{alert.kind}: {alert.sentence}" for alert in alerts]
    document = {
        "text": "\n".join(lines),
        "alerts": [alert.model_dump(mode="json") for alert in alerts],
    }
    request = urllib.request.Request(  # noqa: S310 - settings take http and https only
        url,
        data=json.dumps(document).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout_seconds):  # noqa: S310
            return None
    except urllib.error.HTTPError as error:
        error.close()
        return f"it answered {error.code}"
    except urllib.error.URLError as error:
        return f"it cannot be reached: {error.reason}"
    except (OSError, HTTPException) as error:
        return f"it did not answer: {error}"
