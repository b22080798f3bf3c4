import pytest
from prefect.logging import disable_run_logger

from featurestore.catalog.catalog import Catalog
from headrace.errors import UnknownName
from headrace.plan import FeaturePlan, FeatureRead, JoinKey, ViewRead
from headrace.settings import Settings
from tasks import features
from tasks.readers import ReadByLiveModel, check_nothing_lost, live_readers

WEATHER = ViewRead(
    view="weather",
    table="weather",
    join_keys=(JoinKey(name="origin"),),
    event_timestamp="event",
    created_timestamp="created",
    ttl_seconds=3600.0,
    features=(FeatureRead(name="wind", dtype="DOUBLE"), FeatureRead(name="rain", dtype="INT64")),
)


@pytest.fixture
def settings(tmp_path, released):
    plan = FeaturePlan(
        project="tiny",
        feature_service="delay_v1",
        definitions_sha256="0" * 64,
        event_timestamp="departure",
        views=(WEATHER,),
        request=(),
        inputs_from_request=(),
        transforms=(),
    )
    found = Settings(home=tmp_path)
    released(found, plan, endpoint="delay")
    return found


def defined(*views):
    return Catalog(project="tiny", definitions_sha256="", views=views, services={})


def changed(**fields):
    return defined(WEATHER.model_copy(update=fields))


def test_the_champion_of_an_endpoint_is_a_reader(settings):
    (reader,) = live_readers(settings)
    assert (reader.endpoint, reader.role, reader.model) == ("delay", "champion", "delay")
    assert reader.plan.views == (WEATHER,)


@pytest.mark.parametrize(
    ("catalog", "sentence"),
    [
        (defined(), "weather is not rebuilt: it is no longer defined"),
        (changed(table="forecast"), "its table would be forecast instead of weather"),
        (changed(join_keys=(JoinKey(name="dest"),)), "be dest STRING instead of origin STRING"),
        (changed(created_timestamp=None), "its created time would be none instead of created"),
        (changed(features=()), "wind would be gone; feature rain would be gone.*weather_v2"),
        (
            changed(features=(WEATHER.features[0], FeatureRead(name="rain", dtype="BOOL"))),
            "rain would be BOOL instead of INT64, but the champion of endpoint 'delay'",
        ),
    ],
)
def test_what_a_running_model_would_lose_is_refused(settings, catalog, sentence):
    with pytest.raises(ReadByLiveModel, match=sentence):
        check_nothing_lost(settings, catalog)


def test_what_a_running_model_does_not_notice_is_fine(settings):
    more = (FeatureRead(name="snow", dtype="BOOL"), *reversed(WEATHER.features))
    check_nothing_lost(settings, changed(features=more, ttl_seconds=60.0))
    check_nothing_lost(settings, defined(WEATHER.model_copy(update={"view": "new"}), WEATHER))
    check_nothing_lost(settings, defined().model_copy(update={"project": "another"}))


def test_a_materialization_is_refused_unless_it_is_told_to_replace(settings, monkeypatch):
    monkeypatch.setattr("featurestore.catalog.catalog.load_catalog", lambda _: changed(features=()))
    with disable_run_logger():
        with pytest.raises(ReadByLiveModel):
            features.materialize.fn(settings, until=None)
        with pytest.raises(UnknownName, match="no table is named 'weather'"):
            features.materialize.fn(settings, until=None, replace=True)


def test_an_endpoint_whose_bundle_is_damaged_is_named_and_passed_over(settings, caplog):
    (reader,) = live_readers(settings)
    (settings.home / "storage" / "bundles" / reader.digest / "bundle.json").write_text("{}")
    assert live_readers(settings) == ()
    assert "nobody can tell what endpoint delay reads" in caplog.text


def test_what_a_model_reads_has_a_hash_of_its_own(settings):
    (reader,) = live_readers(settings)
    elsewhere = reader.plan.model_copy(update={"definitions_sha256": "1" * 64})
    longer = WEATHER.model_copy(update={"ttl_seconds": 7200.0})
    assert elsewhere.reads_sha256 == reader.plan.reads_sha256
    assert (
        reader.plan.model_copy(update={"views": (longer,)}).reads_sha256 != elsewhere.reads_sha256
    )
