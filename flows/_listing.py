"""What is known of features, as lines of a terminal."""

import shutil
import textwrap
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featurestore.catalog.discovery import (
        Hit,
        Listing,
        ReaderEntry,
        ServiceEntry,
        TransformEntry,
        ViewEntry,
    )

_WIDEST = 100
_ONLINE = {
    "there": "there",
    "loading": "half written",
    "missing": "not materialized",
    "unknown": "unknown",
}


def listing_text(listing: "Listing") -> str:
    """Every view, service and transform, a line each."""
    views = [
        (
            view.name,
            view.ttl,
            str(len(view.features)),
            _time(view.newest_event) or "no rows",
            _time(view.online_until) or _ONLINE[view.online],
            _worst(view),
            str(len(view.findings) or ""),
        )
        for view in listing.views
    ]
    heads = ("view", "TTL", "features", "newest value", "online until", "missing", "findings")
    services = [
        (s.name, str(sum(map(len, s.views.values()))), ", ".join(s.models), _readers(s.readers))
        for s in listing.services
    ]
    checked = _time(listing.checked_at)
    last = (
        f"checked at {checked} UTC" if checked else "never checked: python -m flows.check_features"
    )
    return "\n".join(
        [
            *_columns(heads, views),
            "",
            *_columns(("service", "features", "models", "read by"), services),
            "",
            *_columns(
                ("transform", "models", "inputs"),
                [(t.name, ", ".join(t.models), ", ".join(t.inputs)) for t in listing.transforms],
            ),
            "",
            f"project {listing.project}, definitions {listing.definitions_sha256[:12]}, {last}",
        ]
    )


def hits_text(hits: "Sequence[Hit]", words: Sequence[str]) -> str:
    """What a search found, a line each."""
    if not hits:
        return f"no view, service, feature or transform has {' and '.join(words)}"
    return "\n".join(_columns((), [(hit.kind, hit.name, hit.description) for hit in hits]))


def view_text(view: "ViewEntry") -> str:
    """All that is known of a view."""
    return _entry(view, _view_facts(view), _feature_rows(view))


def service_text(service: "ServiceEntry") -> str:
    """All that is known of a service."""
    return _entry(service, _service_facts(service), _service_rows(service))


def transform_text(made: "TransformEntry") -> str:
    """All that is known of a transform."""
    facts = {
        "description": " ".join(made.description.split()),
        "inputs": ", ".join(made.inputs),
        "models": ", ".join(made.models),
        "source": f"sha256 {made.source_sha256}",
    }
    return "\n".join([made.name, "", *_facts([(k, v) for k, v in facts.items() if v])])


def _entry(entry: "ViewEntry | ServiceEntry", facts: dict[str, str], rows: list[str]) -> str:
    said = {
        "description": entry.description,
        "owner": entry.owner,
        "tags": ", ".join(f"{name}={value}" for name, value in entry.tags.items()),
    }
    told = [(name, text) for name, text in (said | facts).items() if text]
    return "\n".join([entry.name, "", *_facts(told), "", *rows])


def _view_facts(view: "ViewEntry") -> dict[str, str]:
    created = f", known at {view.created_timestamp}" if view.created_timestamp else ""
    source = f"; pushed to {view.push_source}" if view.push_source else ""
    until = f", all known until {_time(view.online_until)} UTC" if view.online_until else ""
    newest = (
        f", newest value {_time(view.online_newest_event)} UTC" if view.online_newest_event else ""
    )
    return {
        "entities": f"{', '.join(view.entities)} ({', '.join(view.join_keys)})",
        "source": f"table {view.table}, true at {view.event_timestamp}{created}{source}",
        "TTL": view.ttl,
        "offline": f"newest value {_time(view.newest_event)} UTC"
        if view.newest_event
        else "no rows",
        "online": _ONLINE[view.online] + until + newest,
        "services": ", ".join(view.services),
        "read by": _readers(view.readers),
        "findings": " ".join(view.findings),
    }


def _service_facts(service: "ServiceEntry") -> dict[str, str]:
    return {
        "models": ", ".join(service.models),
        "read by": _readers(service.readers),
        "only Feast": ", ".join(service.on_demand),
    }


def _feature_rows(view: "ViewEntry") -> list[str]:
    rows = [
        (
            f.name,
            f.dtype,
            _share(f.null_rate),
            "" if f.psi is None else f"{f.psi:.3f}",
            f.description,
        )
        for f in view.features
    ]
    return _columns(("feature", "type", "missing", "PSI", "description"), rows)


def _service_rows(service: "ServiceEntry") -> list[str]:
    return _columns(("view", "features"), [(v, ", ".join(f)) for v, f in service.views.items()])


def _readers(readers: "Iterable[ReaderEntry]") -> str:
    told = [
        f"{reader.model} {reader.digest[:12]} ({reader.where}"
        f"{'' if reader.as_defined else '; defined otherwise now'})"
        for reader in readers
    ]
    return ", ".join(told)


def _worst(view: "ViewEntry") -> str:
    rates = [feature.null_rate for feature in view.features if feature.null_rate is not None]
    return _share(max(rates)) if rates else ""


def _share(rate: float | None) -> str:
    return "" if rate is None else f"{rate:.1%}"


def _time(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment else ""


def _facts(told: Sequence[tuple[str, str]]) -> list[str]:
    indent = max(len(name) for name, _ in told) + 2
    return [line for name, text in told for line in _wrapped(f"{name:<{indent}}", text)]


def _columns(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned columns; the last one goes on below itself."""
    everything = [heads, *rows] if heads else list(rows)
    if not rows:
        return ["  ".join(heads)]
    widths = [max(len(row[i]) for row in everything) for i in range(len(rows[0]) - 1)]
    return [
        line
        for row in everything
        for line in _wrapped(
            "".join(f"{cell:<{width}}  " for cell, width in zip(row, widths, strict=False)), row[-1]
        )
    ]


def _wrapped(head: str, text: str) -> list[str]:
    width = min(shutil.get_terminal_size((_WIDEST, 24)).columns, _WIDEST)
    pieces = textwrap.wrap(
        text, max(width - len(head), 24), break_long_words=False, break_on_hyphens=False
    )
    first, *more = pieces or [""]
    return [(head + first).rstrip(), *(" " * len(head) + piece for piece in more)]
