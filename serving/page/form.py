"""The page of one model as HTML: one input a field, with its bounds and an example filled in.

The form is whole without the script; what the script adds is sending it. Every input carries what
the script must know to make a row of it: the field's name and kind.
"""

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from serving.fields import Field
from serving.openapi import example_instance

if TYPE_CHECKING:
    from serving.served import ServedModel

_STEP = {"int32": "1", "int64": "1", "float64": "any"}


def page(model: "ServedModel", endpoints: Sequence[str]) -> str:
    """Return the page for ``model``, with links to those of the other ``endpoints``."""
    name, manifest = model.release.endpoint, model.predictor.bundle.manifest
    example = example_instance(model)
    fields = "".join(_field(field, example[field.name]) for field in model.schema.fields)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Try {escape(name)} · Headrace</title>
<link rel="icon" href="data:,"><link rel="stylesheet" href="/try/try.css">
<script src="/try/try.js" defer></script></head>
<body data-model="{escape(name)}" data-task="{escape(manifest.task)}"><main>
<header><h1>Try {escape(name)}</h1>
<p class="badges"><span class="badge">version <b>{escape(model.version)}</b></span>
<span class="badge">revision <b>{model.release.revision}</b></span>
<a class="badge" href="/docs">docs</a><a class="badge" href="/health">health</a></p>
{_others(name, endpoints)}</header>
<div class="columns">
<form id="row" novalidate aria-labelledby="row-title"><h2 id="row-title">A row</h2>
{fields}
<p class="buttons"><button type="submit">Predict</button>
<button type="reset" class="quiet">Example</button></p></form>
<section aria-live="polite" aria-labelledby="answer-title" id="answer">
<h2 id="answer-title">Answer</h2>
<p id="hint">Fill in a row and press <b>Predict</b>, or Enter in any field.</p>
<p id="failure" role="alert" hidden></p>
<div id="result" hidden><output id="prediction" form="row"></output>
<div class="meter" aria-hidden="true"><span id="share"></span></div>
<ul id="statuses"></ul>
<h3 id="why-title">Why</h3><p id="why"></p>
<figure id="picture" aria-labelledby="why-title"></figure></div>
<h3>As a call</h3><pre id="curl" tabindex="0" aria-label="The same request as a command"></pre>
<p class="buttons"><button type="button" class="quiet" id="copy">Copy</button>
<span id="copied" role="status"></span></p></section></div>
<noscript><p class="noscript">This page needs JavaScript to send the form. The same call is in
<a href="/docs">the docs</a>.</p></noscript>
</main></body></html>
"""


def _others(name: str, endpoints: Sequence[str]) -> str:
    others = [other for other in endpoints if other != name]
    if not others:
        return ""
    links = " ".join(f'<a href="/try?model={escape(o)}">{escape(o)}</a>' for o in others)
    return f'<nav aria-label="Other models">Other models: {links}</nav>'


def _field(field: Field, example: Any) -> str:
    name = escape(field.name)
    key = (
        f'<label class="unknown"><input type="checkbox" data-unknown="{name}"> unknown</label>'
        if field.is_key
        else ""
    )
    return f"""<div class="field"><div class="label"><label for="f-{name}">{name}</label>{key}</div>
{_input(field, example)}
<p class="about" id="a-{name}">{escape(_about(field))}</p>
<p class="problem" id="p-{name}" role="alert" hidden></p></div>
"""


def _input(field: Field, example: Any) -> str:
    name = escape(field.name)
    common = (
        f'id="f-{name}" name="{name}" data-kind="{field.kind}" '
        f'aria-describedby="a-{name} p-{name}" required'
    )
    if field.one_of is not None:
        return f"<select {common}>{''.join(_choices(field, example))}</select>"
    if field.kind == "timestamp":
        local = escape(str(example).removesuffix("Z")[:16])
        return f'<input type="datetime-local" step="1" value="{local}" {common}>'
    if field.kind == "string":
        return (
            f'<input type="text" value="{escape(str(example))}" autocomplete="off" '
            f'spellcheck="false" {common}>'
        )
    bounds = "" if field.at_least is None else f' min="{field.at_least:.17g}"'
    bounds += "" if field.at_most is None else f' max="{field.at_most:.17g}"'
    step = _STEP[field.kind]
    return f'<input type="number" step="{step}" value="{example:.17g}"{bounds} {common}>'


def _choices(field: Field, example: Any) -> Iterator[str]:
    for choice in field.one_of or ():
        chosen = " selected" if choice == example else ""
        yield f"<option{chosen}>{escape(str(choice))}</option>"


def _about(field: Field) -> str:
    """What a field means, and what it may hold."""
    bounds = [f"at least {field.at_least:g}"] if field.at_least is not None else []
    bounds += [f"at most {field.at_most:g}"] if field.at_most is not None else []
    bounds += ["in UTC"] if field.kind == "timestamp" else []
    return field.description + (f" ({', '.join(bounds)})" if bounds else "")
