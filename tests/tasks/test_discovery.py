import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.catalog.catalog import Catalog, ServiceView, service_reads
from featurestore.catalog.descriptions import (
    Description,
    Descriptions,
    FeatureDescription,
    ViewDescription,
)
from featurestore.catalog.discovery import NameAmbiguous
from featurestore.stores.materialize import materialize
from flows import _listing
from headrace.errors import UnknownName
from headrace.plan import FeaturePlan, FeatureRead, JoinKey, ViewRead
from headrace.settings import Settings
from tasks import discovery
from tasks.feature_health import check_views, keep_report
from tasks.feature_windows import Windows, moment_of

NOON = datetime(2013, 4, 1, 12, tzinfo=UTC)
STAMP = pa.timestamp("us", tz="UTC")


def view(name, *features, ttl=3600.0):
    return ViewRead(
        view=name,
        table=name,
        join_keys=(JoinKey(name="origin"),),
        event_timestamp="event",
        created_timestamp=None,
        ttl_seconds=ttl,
        features=tuple(FeatureRead(name=n, dtype=t) for n, t in features),
    )


@pytest.fixture
def catalog():
    weather = view("weather", ("wind", "DOUBLE"), ("sky", "STRING"))
    gates = view("gates", ("wind", "DOUBLE"), ttl=None)
    return Catalog(
        project="tiny",
        definitions_sha256="a" * 64,
        views=(weather, gates),
        services={"delay_v1": (ServiceView(view="weather", features=("wind",)),)},
        push_sources={"stations": ("weather",)},
        described=Descriptions(
            views={
                "weather": ViewDescription(
                    description="Hourly <weather> of the origin.",
                    owner="met@office",
                    tags={"domain": "air", "max_psi": "off"},
                    entities=("airport",),
                    features={
                        "wind": FeatureDescription(description="miles an hour"),
                        "sky": FeatureDescription(tags={"pii": "no"}),
                    },
                ),
                "gates": ViewDescription(features={"wind": FeatureDescription()}),
            },
            services={"delay_v1": Description(owner="us")},
        ),
    )


@pytest.fixture
def settings(tmp_path, catalog, released):
    """A store with a table, materialised, checked, and read by a champion."""
    found = Settings(home=tmp_path)
    table = pa.table(
        {
            "origin": ["EWR", "JFK"],
            "event": pa.array([NOON.replace(hour=10), NOON.replace(hour=11)], STAMP),
            "wind": [3.0, None],
            "sky": ["clear", "clear"],
        }
    )
    (tmp_path / "storage" / "offline").mkdir(parents=True)
    pq.write_table(table, found.uri("offline", "weather.parquet"), write_page_checksum=True)
    only = catalog.model_copy(update={"views": catalog.views[:1]})
    materialize(found, only, until=NOON)
    keep_report(found, check_views(found, catalog, Windows.before(NOON, days=1, past=2)))
    plan = FeaturePlan(
        project="tiny",
        feature_service="delay_v1",
        definitions_sha256="",
        event_timestamp="at",
        views=service_reads(catalog, "delay_v1"),
        request=(),
        inputs_from_request=(),
        transforms=(),
    )
    released(found, plan, endpoint="delay")
    return found


@pytest.fixture
def listing(settings, catalog):
    return discovery.listing_of(settings, catalog)


def test_a_view_is_described_from_definitions_stores_check_and_releases(listing):
    weather = discovery.describe(listing, "weather")
    assert (weather.owner, weather.push_source, weather.ttl) == ("met@office", "stations", "1 hour")
    assert weather.newest_event == NOON.replace(hour=11)
    assert (weather.online, weather.online_until) == ("there", NOON)
    assert weather.online_newest_event == NOON.replace(hour=11)
    assert [feature.null_rate for feature in weather.features] == [0.5, 0.0]
    (reader,) = weather.readers
    assert (reader.where, reader.as_defined) == ("champion of delay", True)
    assert weather.services == ("delay_v1",)


def test_a_view_whose_table_and_rows_are_missing_is_listed_all_the_same(listing):
    gates = discovery.describe(listing, "gates")
    assert (gates.newest_event, gates.online, gates.ttl) == (None, "missing", "any age")
    assert "no table is named 'gates'" in gates.findings[0]


def test_a_reader_whose_view_was_changed_since_is_marked(settings, catalog):
    longer = catalog.views[0].model_copy(update={"ttl_seconds": 60.0})
    changed = catalog.model_copy(update={"views": (longer, catalog.views[1])})
    listing = discovery.listing_of(settings, changed)
    (reader,) = discovery.describe(listing, "delay_v1").readers
    assert not reader.as_defined


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["WIND"], ["weather.wind", "gates.wind", "weather", "gates"]),
        (["wind", "miles"], ["weather.wind"]),
        (["met@"], ["weather"]),
        (["domain:air"], ["weather"]),
        (["pii"], ["weather.sky"]),
        (["delay_v1"], ["delay_v1"]),
        (["plane", "age"], ["flights.plane_age_years"]),
        (["nothing", "at all"], []),
    ],
)
def test_a_search_finds_what_has_every_word(listing, words, names):
    assert [hit.name for hit in discovery.search(listing, words)] == names


@pytest.mark.parametrize("name", ["weather.sky", "weather:sky", "weather__sky", "sky"])
def test_a_feature_is_found_by_each_of_its_names(listing, name):
    (feature,) = discovery.describe(listing, name).features
    assert feature.column == "weather__sky"


def test_a_name_that_is_not_there_or_not_alone_is_refused(listing):
    with pytest.raises(UnknownName, match="did you mean 'weather'"):
        discovery.describe(listing, "wether")
    with pytest.raises(NameAmbiguous, match=r"write weather\.wind or gates\.wind"):
        discovery.describe(listing, "wind")


def test_an_online_store_that_cannot_be_read_is_a_note(settings, catalog):
    settings.online_path.write_bytes(b"this is no database" * 100)
    listing = discovery.listing_of(settings, catalog)
    assert str(settings.online_path) in listing.problems[0]
    assert {view.online for view in listing.views} == {"unknown"}


def test_the_terminal_shows_names_ages_shares_and_readers(listing):
    text = _listing.listing_text(listing)
    assert "weather  1 hour   2         2013-04-01 11:00  2013-04-01 12:00  50.0%" in text
    assert "(champion of delay)" in text
    told = _listing.view_text(discovery.describe(listing, "weather"))
    assert "pushed to stations" in told
    assert "wind     DOUBLE  50.0%" in told
    made = discovery.describe(listing, "flights.plane_age_years")
    assert "scheduled_departure, planes__year_built" in _listing.transform_text(made)
    assert "flight_delay" in made.models
    assert "has a and b" in _listing.hits_text((), ["a", "b"])


def test_the_page_escapes_what_definitions_say_and_loads_nothing(settings, listing):
    uri = discovery.write_page(settings, listing)
    html = Path(uri).read_text()
    assert "Hourly &lt;weather&gt; of the origin." in html
    assert "<weather>" not in html
    assert "default-src 'none'" in html
    assert "http" not in html.replace("http-equiv", "")


def test_a_browser_shows_what_the_search_finds(settings, listing):
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("neither chromium nor chromium-browser is installed")
    page = Path(discovery.write_page(settings, listing)).as_uri()
    profile = f"--user-data-dir={settings.home / 'profile'}"
    options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom", profile)
    done = subprocess.run(
        [browser, *options, f"{page}?q=met%40office+sky"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    shown = re.findall(r'<article class="card" id="(\w+)">', done.stdout)
    hidden = re.findall(r'<article class="card" id="(\w+)" hidden', done.stdout)
    assert (shown, hidden) == (["weather"], ["delay_v1", "gates", "transforms"])
    assert "<output>1 of 4</output>" in done.stdout


def test_asking_for_help_waits_for_nothing_heavy():
    code = (
        "import sys, flows.features as f\n"
        "try: f.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'pyarrow', 'prefect', 'feast', 'mlflow'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "describe" in done.stdout


def test_moments_are_days_the_clock_or_the_newest_value(settings, catalog):
    assert moment_of(settings, catalog, "data") == NOON.replace(hour=11, second=1)
    assert moment_of(settings, catalog, "2013-02-03") == datetime(2013, 2, 3, tzinfo=UTC)
    assert moment_of(settings, catalog, "now").year >= 2025
