"""The page of all features: one HTML file with its own style and script, opened without a network.

Everything that comes from definitions is escaped, and the page's policy lets nothing be loaded or
sent. Without a script it shows everything; the script adds the search, which ``?q=wind`` begins.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from html import escape

from featurestore.catalog.discovery import (
    FeatureEntry,
    Listing,
    ReaderEntry,
    ServiceEntry,
    ViewEntry,
)

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --ink: #16202c; --soft: #5a6878; --line: #dde4ec;
  --page: #f6f8fb; --card: #fff; --accent: #0b6e8f; --good: #0b7a53; --warn: #9a6200;
  --warn-soft: #fdf3de; --bar: #cfe3ec; --hit: #fff3c4; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4ebf2; --soft: #9aa9b8; --line: #2a3644;
  --page: #10171f; --card: #18212b; --accent: #5cc1e0; --good: #4fc79a; --warn: #e5b567;
  --warn-soft: #2b2415; --bar: #28475a; --hit: #4a3f16; } }
* { box-sizing: border-box; }
html { scroll-padding-top: 5rem; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 2.5rem 1.5rem 5rem; }
h1 { margin: 0; font-size: 1.9rem; letter-spacing: -.01em; }
h2 { margin: 2.6rem 0 .9rem; font-size: 1.15rem; }
h3 { margin: 0; font-size: 1.05rem; font-weight: 650; }
h3 a { color: inherit; text-decoration: none; }
p { margin: .35rem 0 0; color: var(--soft); }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
code { font: 13px/1.5 ui-monospace, "SF Mono", Menlo, "DejaVu Sans Mono", monospace; }
.badges { display: flex; flex-wrap: wrap; gap: .5rem; margin-top: .9rem; }
.badge { padding: .1rem .65rem; border: 1px solid var(--line); border-radius: 99px;
  background: var(--card); color: var(--soft); font-size: 13px; }
.badge b { color: var(--ink); font-weight: 600; }
.note { margin-top: 1rem; padding: .7rem 1rem; border-radius: 10px; background: var(--warn-soft);
  color: var(--warn); }
.search { position: sticky; top: 0; z-index: 1; margin: 1.4rem 0 0; padding: .8rem 0;
  background: var(--page); }
.search input { width: 100%; padding: .7rem 1rem; border: 1px solid var(--line);
  border-radius: 10px; background: var(--card); color: var(--ink); font: inherit; }
.search input:focus { outline: 2px solid var(--accent); outline-offset: -1px; }
.search output { position: absolute; right: 2.7rem; top: 1.55rem; color: var(--soft);
  font-size: 13px; }
.card { margin-bottom: 1.1rem; padding: 1.2rem 1.35rem; border: 1px solid var(--line);
  border-radius: 12px; background: var(--card); }
.top { display: flex; gap: .8rem; align-items: baseline; justify-content: space-between; }
.state { white-space: nowrap; font-size: 13px; color: var(--good); }
.state.warn { color: var(--warn); }
.state::before { content: "\\25cf\\00a0"; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(14.5rem, 1fr));
  gap: .7rem 1.4rem; margin: 1rem 0 0; }
dt { color: var(--soft); font-size: 12px; font-weight: 600; letter-spacing: .04em;
  text-transform: uppercase; }
dd { margin: 0; overflow-wrap: anywhere; }
.tags { display: flex; flex-wrap: wrap; gap: .35rem; margin-top: .8rem; }
.tag { padding: 0 .55rem; border-radius: 6px; background: var(--page); color: var(--soft);
  font-size: 12.5px; }
.found { margin: .9rem 0 0; padding: .6rem .9rem; border-left: 3px solid var(--warn);
  border-radius: 0 8px 8px 0; background: var(--warn-soft); color: var(--ink); }
.table { margin: 1rem -1.35rem -1.2rem; overflow-x: auto; border-top: 1px solid var(--line); }
table { width: 100%; border-collapse: collapse; }
th, td { padding: .42rem .7rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { padding-left: 1.35rem; }
th:last-child, td:last-child { padding-right: 1.35rem; }
td { overflow-wrap: anywhere; }
td:first-child { overflow-wrap: normal; }
tr:last-child td { border-bottom: 0; }
th { color: var(--soft); font-size: 12px; font-weight: 600; letter-spacing: .04em;
  text-transform: uppercase; }
td.number { white-space: nowrap; text-align: right; font-variant-numeric: tabular-nums; }
th.number { text-align: right; }
.type { color: var(--soft); font-size: 12.5px; white-space: nowrap; }
.bar { display: inline-block; width: 3.4rem; height: .5rem; margin-right: .5rem;
  border-radius: 3px; background: var(--page); overflow: hidden; }
.number b { display: inline-block; min-width: 3.3rem; font-weight: 400; }
.bar i { display: block; height: 100%; background: var(--bar); }
tr.hit td { background: var(--hit); }
[hidden] { display: none !important; }
"""
_SCRIPT = """
const box = document.querySelector('.search'), input = box.querySelector('input');
const cards = [...document.querySelectorAll('.card')];
box.hidden = false;
function search() {
  const words = input.value.toLowerCase().split(/\\s+/).filter(Boolean);
  const has = element => words.every(w => element.textContent.toLowerCase().includes(w));
  let shown = 0;
  for (const card of cards) {
    card.hidden = !has(card);
    shown += !card.hidden;
    for (const row of card.querySelectorAll('tbody tr'))
      row.classList.toggle('hit', words.length > 0 && has(row));
  }
  for (const part of document.querySelectorAll('section'))
    part.hidden = ![...part.querySelectorAll('.card')].some(card => !card.hidden);
  box.querySelector('output').textContent =
    words.length ? shown + ' of ' + cards.length : '';
}
input.value = new URLSearchParams(location.search).get('q') || '';
input.addEventListener('input', search);
addEventListener('keydown', event => {
  if (event.key === 'Escape') { input.value = ''; search(); }
  if (event.key !== '/' || document.activeElement === input) return;
  event.preventDefault();
  input.focus();
});
search();
"""


def page(listing: Listing, *, made_at: datetime) -> str:
    """Return the page of a listing; ``made_at`` is shown on it, in UTC."""
    views = "".join(_view_card(view) for view in listing.views)
    services = "".join(_service_card(service) for service in listing.services)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Features of {escape(listing.project)}</title><style>{_STYLE}</style></head><body><main>
<h1>Features of {escape(listing.project)}</h1>
<p>What models can know: the views, their features, how fresh they are, and who reads them.</p>
<div class="badges">{"".join(_badges(listing, made_at))}</div>
{"".join(f'<div class="note">{escape(problem)}</div>' for problem in listing.problems)}
<div class="search" hidden><input type="search" autofocus aria-label="Search features"
placeholder="Search names, descriptions, tags, owners ...  ( / )"><output></output></div>
<section><h2>Services</h2>{services}</section>
<section><h2>Views</h2>{views}</section>
{_transforms(listing)}
</main><script>{_SCRIPT}</script></body></html>
"""


def _badges(listing: Listing, made_at: datetime) -> Iterator[str]:
    features = sum(len(view.features) for view in listing.views)
    checked = _time(listing.checked_at) if listing.checked_at else "never"
    for what, value in (
        ("views", len(listing.views)),
        ("features", features),
        ("services", len(listing.services)),
        ("transforms", len(listing.transforms)),
        ("definitions", listing.definitions_sha256[:12]),
        ("last check", checked),
        ("page made", _time(made_at)),
    ):
        yield f'<span class="badge">{what} <b>{escape(str(value))}</b></span>'


def _service_card(service: ServiceEntry) -> str:
    count = sum(map(len, service.views.values()))
    facts = {
        "Features": f"{count} of {len(service.views)} views",
        "Owner": escape(service.owner),
        "Models": escape(", ".join(service.models)),
        "Read by": _readers(service.readers),
        "Only Feast computes": escape(", ".join(service.on_demand)),
    }
    rows = "".join(
        f'<tr><td><a href="#{escape(view)}"><code>{escape(view)}</code></a></td>'
        f"<td>{escape(', '.join(features))}</td></tr>"
        for view, features in service.views.items()
    )
    return _card(
        service, "", facts, f"<thead><tr><th>View</th><th>Features</th></tr></thead>{rows}"
    )


def _view_card(view: ViewEntry) -> str:
    known = f", known at <code>{escape(view.created_timestamp or '')}</code>"
    pushed = f"; pushed to <code>{escape(view.push_source or '')}</code>"
    facts = {
        "Entities": escape(f"{', '.join(view.entities)} ({', '.join(view.join_keys)})"),
        "TTL": view.ttl,
        "Source": f"table <code>{escape(view.table)}</code>, true at "
        f"<code>{escape(view.event_timestamp)}</code>"
        f"{known if view.created_timestamp else ''}{pushed if view.push_source else ''}",
        "Newest value": _time(view.newest_event) if view.newest_event else "no rows",
        "Online until": _online(view),
        "Owner": escape(view.owner),
        "Services": ", ".join(f'<a href="#{escape(s)}">{escape(s)}</a>' for s in view.services),
        "Read by": _readers(view.readers),
    }
    head = (
        "<thead><tr><th>Feature</th><th>Type</th><th>Description</th>"
        '<th class="number" title="share of missing values at the last check">Missing</th>'
        '<th class="number" title="how far it moved from the weeks before, in nats">PSI</th></tr>'
        "</thead>"
    )
    troubles = _troubles(view)
    state = f'<span class="state{" warn" * bool(troubles)}">{troubles or "well"}</span>'
    return _card(view, state, facts, head + "".join(map(_feature_row, view.features)))


def _transforms(listing: Listing) -> str:
    if not listing.transforms:
        return ""
    rows = "".join(
        f'<tr id="{escape(made.name)}"><td><code>{escape(made.name)}</code></td>'
        f"<td>{escape(made.description)}</td><td>{escape(', '.join(made.inputs))}</td>"
        f"<td>{escape(', '.join(made.models))}</td></tr>"
        for made in listing.transforms
    )
    return f"""<section><h2>Transforms</h2><article class="card" id="transforms">
<p>Computed at request time, by the same function in training and in the server.</p>
<div class="table"><table><thead><tr><th>Transform</th><th>Description</th><th>Inputs</th>
<th>Models</th></tr></thead>{rows}</table></div></article></section>"""


def _card(entry: ViewEntry | ServiceEntry, state: str, facts: dict[str, str], rows: str) -> str:
    name = escape(entry.name)
    tags = "".join(f'<span class="tag">{escape(f"{k}: {v}")}</span>' for k, v in entry.tags.items())
    told = "".join(f"<div><dt>{dt}</dt><dd>{dd}</dd></div>" for dt, dd in facts.items() if dd)
    findings = entry.findings if isinstance(entry, ViewEntry) else ()
    found = "".join(f'<p class="found">{escape(sentence)}</p>' for sentence in findings)
    return f"""<article class="card" id="{name}"><div class="top">
<h3><a href="#{name}">{name}</a></h3>{state}</div>
<p>{escape(entry.description)}</p>{found}<dl>{told}</dl>
<div class="tags">{tags}</div><div class="table"><table>{rows}</table></div></article>
"""


def _feature_row(feature: FeatureEntry) -> str:
    tags = "".join(
        f' <span class="tag">{escape(f"{k}: {v}")}</span>' for k, v in feature.tags.items()
    )
    psi = "" if feature.psi is None else f"{feature.psi:.3f}"
    return (
        f"<tr><td><code>{escape(feature.name)}</code></td>"
        f'<td class="type">{escape(feature.dtype)}</td>'
        f"<td>{escape(feature.description)}{tags}</td>"
        f'<td class="number">{_share(feature.null_rate)}</td><td class="number">{psi}</td></tr>'
    )


def _share(rate: float | None) -> str:
    if rate is None:
        return ""
    return f'<span class="bar"><i style="width:{rate:.1%}"></i></span><b>{rate:.1%}</b>'


def _troubles(view: ViewEntry) -> str:
    if view.findings:
        return f"{len(view.findings)} finding{'s' if len(view.findings) > 1 else ''}"
    return {"missing": "not materialized", "loading": "half written"}.get(view.online, "")


def _online(view: ViewEntry) -> str:
    if view.online_until:
        return _time(view.online_until)
    kinds = {"missing": "not materialized", "loading": "half written", "there": "only pushed to"}
    return kinds.get(view.online, "unknown")


def _readers(readers: Iterable[ReaderEntry]) -> str:
    return "<br>".join(
        f"{escape(reader.model)} <code>{escape(reader.digest[:12])}</code>, {escape(reader.where)}"
        f"{'' if reader.as_defined else ' (defined otherwise now)'}"
        for reader in readers
    )


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
