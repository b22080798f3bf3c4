"""The page is filled in, sent and read in a real browser, as people do it."""

import json
import shlex
import threading

import httpx
import pytest
import uvicorn


@pytest.fixture
def url(app):
    """The address of the server, answering over a socket."""
    config = uvicorn.Config(app, port=0, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        pass
    yield "http://{}:{}".format(*server.servers[0].sockets[0].getsockname())
    server.should_exit = True
    thread.join()


ANSWERED = "document.querySelector('#picture svg') !== null"
SENT = "document.querySelector('#row [type=submit]').disabled === false"


def fill(page, **values):
    """Set inputs as a hand does: the text, and the event that tells of it."""
    for name, value in values.items():
        page.run(
            f"(() => {{ const input = document.getElementById('f-{name}');"
            f"input.value = {json.dumps(value)};"
            "input.dispatchEvent(new Event('input', {bubbles: true})); })()"
        )


def told(page, selector):
    return page.run(f"document.querySelector({selector!r}).innerText")


def test_the_root_leads_to_the_page_under_a_strict_policy(client):
    root, page = client.get("/"), client.get("/try")
    assert (root.status_code, root.headers["Location"]) == (307, "/try")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "<script>" not in page.text
    assert " style=" not in page.text
    for part, kind in (("try.js", "text/javascript"), ("try.css", "text/css")):
        assert client.get(f"/try/{part}").headers["Content-Type"].startswith(kind)
    assert client.get("/try/form.py").status_code == 404
    assert client.get("/try?model=nobody").status_code == 404


def test_the_form_knows_the_kinds_and_bounds_of_the_schema(client):
    html = client.get("/try").text
    assert 'type="number" step="any" value="5000" min="0" max="10000"' in html
    assert 'type="datetime-local"' in html
    assert 'data-unknown="origin"' in html
    assert 'data-unknown="distance_miles"' not in html


def test_the_example_is_predicted_and_explained_at_a_press(page, url, client, instance):
    page.open(f"{url}/try", width=1100)
    fill(page, origin="JFK", tailnum="N123AA", distance_miles="2475")
    page.run("document.querySelector('#row [type=submit]').click()")
    page.wait(ANSWERED)
    (wanted,) = client.post("/api/v1/infer", json={"instances": [instance()]}).json()["predictions"]
    assert told(page, "#prediction") == f"{100 * wanted['prediction']:.1f} %"
    assert told(page, "#statuses").split("\n") == ["weather: present", "planes: present"]
    bars = page.run("document.querySelectorAll('#picture rect').length")
    texts = page.run("[...document.querySelectorAll('#picture text')].map(t => t.textContent)")
    assert bars == 5
    assert any(text.startswith("distance_miles = 2,475") for text in texts)
    sizes = page.run(
        "[...document.querySelectorAll('#picture rect')].map(r => +r.getAttribute('width'))"
    )
    assert sizes == sorted(sizes, reverse=True)
    assert "log odds" in told(page, "#why")
    assert page.messages == []


def test_the_call_on_the_page_gives_the_same_answer(page, url):
    page.open(f"{url}/try", width=1100)
    fill(page, origin="O'Hare")
    page.run("document.querySelector('#row [type=submit]').click()")
    page.wait(ANSWERED)
    words = shlex.split(told(page, "#curl"))
    body = words[words.index("-d") + 1]
    assert json.loads(body)["instances"][0]["origin"] == "O'Hare"
    answer = httpx.post(words[2], content=body).json()
    assert told(page, "#prediction") == f"{100 * answer['predictions'][0]['prediction']:.1f} %"


def test_an_unknown_entity_is_null_and_its_features_are_missing(page, url):
    page.open(f"{url}/try", width=1100)
    fill(page, origin="JFK", tailnum="N123AA")
    page.run("document.querySelector('[data-unknown=tailnum]').click()")
    assert '"tailnum": null' in told(page, "#curl")
    page.run("document.querySelector('#row [type=submit]').click()")
    page.wait(ANSWERED)
    assert told(page, "#statuses").split("\n")[1] == "planes: never seen"


def test_an_error_stands_beside_the_field_that_it_names(page, url):
    page.open(f"{url}/try", width=1100)
    fill(page, distance_miles="-1")
    page.run("document.querySelector('#row [type=submit]').click()")
    page.wait("!document.getElementById('p-distance_miles').hidden")
    assert "-1 is too small" in told(page, "#p-distance_miles")
    assert page.run("document.activeElement.id") == "f-distance_miles"
    assert page.run("document.getElementById('result').hidden")
    fill(page, distance_miles="")
    page.run("document.querySelector('#row [type=submit]').click()")
    page.wait("document.getElementById('p-distance_miles').innerText === 'write a number'")
    page.run("document.querySelector('#row [type=reset]').click()")
    page.wait("document.getElementById('p-distance_miles').hidden")


def test_it_works_by_keyboard_alone(page, url):
    page.open(f"{url}/try", width=1100)
    order = []
    for _ in range(4):
        page.press("Tab")
        order.append(page.run("document.activeElement.textContent || document.activeElement.id"))
    assert order[0] == "docs"
    while page.run("document.activeElement.id") != "f-distance_miles":
        page.press("Tab")
    page.run("document.activeElement.select()")
    page.write("100")
    page.press("Enter")
    page.wait(ANSWERED)
    assert '"distance_miles": 100' in told(page, "#curl")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1100])
def test_nothing_is_cut_off_and_everything_can_be_read(page, url, tmp_path, width, dark):
    page.open(f"{url}/try", width=width, dark=dark)
    page.run("document.querySelector('#row [type=submit]').click()")
    page.wait(ANSWERED)
    (tmp_path / f"try-{width}-{dark}.png").write_bytes(page.picture())
    assert page.run("document.documentElement.scrollWidth") <= width
    outside = page.run(
        "(() => { const frame = document.querySelector('#picture svg').getBoundingClientRect();"
        "return [...document.querySelectorAll('#picture text')].filter(t => {"
        "const b = t.getBoundingClientRect();"
        "return b.left < frame.left - 1 || b.right > frame.right + 1; }).map(t => t.textContent);"
        "})()"
    )
    assert outside == []
    assert page.run(CONTRAST) == []


# Contrast of WCAG 2, at least 4.5 to 1, for text on the nearest background that is not transparent.
CONTRAST = """(() => {
  const parts = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => parts(color).slice(0, 3).map((c) => c / 255)
    .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor, alpha = parts(color)[3];
      if (alpha === undefined || alpha > 0) return color;
    }
    return getComputedStyle(document.body).backgroundColor;
  };
  return [...document.querySelectorAll('main *:not(title)')]
    .filter((e) => !e.closest('[hidden]') && !e.closest(':disabled')
      && [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()))
    .map((e) => {
      const style = getComputedStyle(e);
      const [a, b] = [light(e instanceof SVGElement ? style.fill : style.color), light(behind(e))];
      return [e.textContent.slice(0, 30), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
    })
    .filter(([, ratio]) => ratio < 4.5);
})()"""
