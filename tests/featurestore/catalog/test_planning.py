import pytest

from featurestore.catalog.catalog import Catalog, ServiceView
from featurestore.catalog.planning import plan_for
from headrace.errors import SpecRefused, UnknownName
from headrace.plan import FeatureRead, JoinKey
from headrace.spec import Gate, LabelSource, ModelSpec, RequestField


@pytest.fixture
def catalog(read):
    doubles = tuple(FeatureRead(name=n, dtype="DOUBLE") for n in ("x", "y", "z"))
    return Catalog(
        project="tiny",
        definitions_sha256="abc",
        views=(
            read(features=doubles),
            read(view="gates", keys=(JoinKey(name="origin"), JoinKey(name="gate", dtype="INT64"))),
        ),
        services={
            "one": (ServiceView(view="hourly", features=("z", "x")),),
            "two": (ServiceView(view="gates", features=("x",)),),
        },
    )


def spec(**fields):
    plain = {
        "name": "delay",
        "description": "late or not late",
        "owner": "us",
        "feature_service": "one",
        "label": LabelSource(
            table="labels",
            entity_keys=("origin",),
            event_timestamp="departure",
            created_timestamp="arrival",
            column="late",
        ),
        "scoring_table": "schedule",
        "gates": (Gate(metric="roc_auc", at_least=0.5),),
        "request": (RequestField(name="distance", description="miles"),),
        "inputs_from_request": ("distance",),
    }
    return ModelSpec(**(plain | fields))


def test_a_plan_reads_the_features_of_the_service_in_its_order(catalog):
    plan = plan_for(catalog, spec())
    assert plan.columns == ("hourly__z", "hourly__x", "distance")
    assert (plan.project, plan.definitions_sha256) == ("tiny", "abc")
    assert plan.event_timestamp == "departure"
    assert plan.entity_keys == ("origin",)


def test_transforms_are_pinned_by_their_source(catalog):
    departure = RequestField(name="scheduled_departure", dtype="timestamp", description="UTC")
    plan = plan_for(
        catalog,
        spec(
            transforms=("flights.scheduled_weekday",), request=(departure,), inputs_from_request=()
        ),
    )
    (pinned,) = plan.transforms
    assert (pinned.name, pinned.output) == ("flights.scheduled_weekday", "scheduled_weekday")
    assert len(pinned.source_sha256) == 64


def test_an_unknown_service_or_transform_is_refused_with_the_known_ones(catalog):
    with pytest.raises(UnknownName, match=r"no feature service is named 'three'.* Known: one, two"):
        plan_for(catalog, spec(feature_service="three"))
    with pytest.raises(UnknownName, match="did you mean 'scheduled_hour'"):
        plan_for(catalog, spec(transforms=("flights.scheduled_hours",)))


def test_labels_without_a_join_key_of_the_service_are_refused(catalog):
    with pytest.raises(SpecRefused, match=r"feature service two needs gate in label\.entity_keys"):
        plan_for(catalog, spec(feature_service="two"))


def test_a_transform_whose_input_nobody_gives_is_refused(catalog):
    with pytest.raises(SpecRefused, match=r"needs planes__year_built.*neither a request field nor"):
        plan_for(catalog, spec(transforms=("flights.plane_age_years",)))


def test_what_is_no_number_must_feed_a_transform(catalog):
    words = (FeatureRead(name="sign", dtype="STRING"), FeatureRead(name="x", dtype="DOUBLE"))
    gates = catalog.views[0].model_copy(update={"view": "planes", "features": words})
    services = {"one": (ServiceView(view="planes", features=("sign", "x")),)}
    worded = catalog.model_copy(update={"views": (gates,), "services": services})
    with pytest.raises(SpecRefused, match="planes__sign is STRING, no number, and no transform"):
        plan_for(worded, spec())


def test_a_service_with_an_on_demand_view_is_feasts_alone(catalog):
    feasts = catalog.model_copy(update={"on_demand": {"one": ("doubled",)}})
    with pytest.raises(SpecRefused, match="lists doubled, an on-demand view, which only Feast"):
        plan_for(feasts, spec())


def test_two_inputs_of_one_name_are_refused(catalog):
    departure = RequestField(name="scheduled_departure", dtype="timestamp", description="UTC")
    weekday = RequestField(name="scheduled_weekday", description="0 to 6")
    with pytest.raises(SpecRefused, match="two inputs are called scheduled_weekday"):
        plan_for(
            catalog,
            spec(
                transforms=("flights.scheduled_weekday",),
                request=(departure, weekday),
                inputs_from_request=("scheduled_weekday",),
            ),
        )
