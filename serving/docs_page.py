"""The page at ``/docs``: what the server offers, rendered from its OpenAPI document.

One HTML file with its own style and no script, so that it opens without a network.
"""

import json
import math
from collections.abc import Iterator
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --ink: #16202c; --soft: #5a6878; --line: #dde4ec;
  --page: #f6f8fb; --card: #fff; --accent: #0b6e8f; --code: #0f1f2e; --code-ink: #dcebf5; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4ebf2; --soft: #9aa9b8; --line: #2a3644;
  --page: #10171f; --card: #18212b; --accent: #5cc1e0; --code: #0b1118; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
h1 { margin: 0; font-size: 1.9rem; letter-spacing: -.01em; }
h2 { margin: 2.4rem 0 .8rem; font-size: 1.15rem; }
p { margin: .5rem 0 1rem; color: var(--soft); }
code, pre { font: 13px/1.5 ui-monospace, "SF Mono", Menlo, "DejaVu Sans Mono", monospace; }
pre { margin: 0; padding: 1rem 1.2rem; overflow-x: auto; border-radius: 10px;
  background: var(--code); color: var(--code-ink); user-select: all; }
.badges { display: flex; flex-wrap: wrap; gap: .5rem; margin-top: .9rem; }
.badge { padding: .1rem .65rem; border: 1px solid var(--line); border-radius: 99px;
  background: var(--card); color: var(--soft); font-size: 13px; }
.badge b { color: var(--ink); font-weight: 600; }
.card { overflow-x: auto; border: 1px solid var(--line); border-radius: 10px;
  background: var(--card); }
table { width: 100%; border-collapse: collapse; }
th, td { padding: .5rem .9rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
tr:last-child td { border-bottom: 0; }
th { color: var(--soft); font-size: 12px; font-weight: 600; letter-spacing: .04em;
  text-transform: uppercase; }
td code { white-space: nowrap; }
.verb { display: inline-block; min-width: 3.2rem; padding: 0 .4rem; border-radius: 5px;
  text-align: center; font-size: 12px; font-weight: 700; color: #fff; background: #4a6b82; }
.verb.post { background: #0b7a53; }
a { color: var(--accent); }
"""
_ANY = 2.0**31 - 1  # bounds this wide are those of the type


def page(document: dict[str, Any], *, base_url: str) -> str:
    """Return the page for an OpenAPI ``document`` of the server at ``base_url``."""
    info = document["info"]
    title = escape(info["title"])
    instance = document["components"]["schemas"]["Instance"]
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} · Headrace</title><style>{_STYLE}</style></head><body><main>
<h1>{title}</h1>
<p>{escape(info["description"])}</p>
<div class="badges"><span class="badge">version <b>{escape(info["version"])}</b></span>
<span class="badge"><a href="/openapi.json">OpenAPI {escape(document["openapi"])}</a></span>
<span class="badge"><a href="/health">health</a></span>
<span class="badge"><a href="/metrics">metrics</a></span></div>
<h2>Ask it</h2>
<p>One object a row; a list of one is a single question. The entities below are made up: put in
real ones, or null where an entity is not known.</p>
<pre>{escape(_curl(instance["examples"][0], base_url))}</pre>
<h2>Fields of a row</h2>
<p>Every field must be there; an unknown one is refused.</p>
<div class="card"><table><thead><tr><th>Field</th><th>Type</th><th>Meaning</th></tr></thead>
<tbody>{"".join(_field_rows(instance["properties"]))}</tbody></table></div>
<h2>Raw features</h2>
<p>The Open Inference Protocol takes the model's inputs themselves, for callers that have them:
one tensor a column, or all columns as one tensor <code>features</code> in this order. The values
below are a golden row of the model; null is a missing value.</p>
<pre>{escape(_v2_curl(document, base_url))}</pre>
<h2>Endpoints</h2>
<div class="card"><table><tbody>{"".join(_path_rows(document["paths"]))}</tbody></table></div>
<h2>When something is wrong</h2>
<div class="card"><table><tbody>{"".join(_status_rows(document))}</tbody></table></div>
</main></body></html>
"""


def _curl(instance: dict[str, Any], base_url: str) -> str:
    """A call that can be pasted into a shell."""
    rows = json.dumps({"instances": [instance]}, indent=2).replace("'", "'\\''")
    return (
        f"curl -s {base_url}/api/v1/infer \\\n  -H 'Content-Type: application/json' \\\n"
        f"  -d '{rows}'"
    )


def _v2_curl(document: dict[str, Any], base_url: str) -> str:
    tensors = document["components"]["schemas"]["V2InferRequest"]["examples"][0]["inputs"]
    lines = ",\n  ".join(json.dumps(tensor) for tensor in tensors).replace("'", "'\\''")
    path = f"/v2/models/{document['info']['title']}/infer"
    return f"curl -s {base_url}{path} -d '{{\"inputs\": [\n  {lines}\n]}}'"


def _field_rows(properties: dict[str, Any]) -> Iterator[str]:
    for name, schema in properties.items():
        yield (
            f"<tr><td><code>{escape(name)}</code></td><td>{escape(_type(schema))}</td>"
            f"<td>{escape(schema['description'])}</td></tr>"
        )


def _type(schema: dict[str, Any]) -> str:
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    words = " or ".join(kinds)
    if schema.get("format") == "date-time":
        words = "time with zone"
    low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    bounds = [f"from {low:g}"] if low > -_ANY else []
    bounds += [f"to {high:g}"] if high < _ANY else []
    return " ".join([words, *bounds])


def _path_rows(paths: dict[str, Any]) -> Iterator[str]:
    for path, operations in paths.items():
        for verb, operation in operations.items():
            yield (
                f'<tr><td><span class="verb {verb}">{verb.upper()}</span></td>'
                f"<td><code>{escape(path)}</code></td><td>{escape(operation['summary'])}</td></tr>"
            )


def _status_rows(document: dict[str, Any]) -> Iterator[str]:
    responses = document["paths"]["/api/v1/infer"]["post"]["responses"]
    for status, told in responses.items():
        if status != "200":
            text = escape(told["description"])
            yield f"<tr><td><code>{status}</code></td><td>{text}</td></tr>"
