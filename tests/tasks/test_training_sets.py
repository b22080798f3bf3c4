from datetime import UTC, datetime

import pytest

from featurestore.join.certificate import Certificate
from featurestore.join.verify import verify
from headrace import storage
from headrace.settings import Settings
from headrace.spec import load_spec
from tasks import training_sets

UNTIL = datetime(2013, 2, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def made(sample_home, tmp_path_factory):
    import shutil

    home = tmp_path_factory.mktemp("certified") / "home"
    shutil.copytree(sample_home, home)
    settings = Settings(home=home)
    spec = load_spec("flight_delay")
    spec = spec.model_copy(update={"validation": spec.validation.model_copy(update={"days": 7})})
    return settings, spec, training_sets.make_training_set(settings, spec, since=None, until=UNTIL)


def test_a_training_set_ships_with_a_certificate_that_holds(made):
    settings, _, training_set = made
    document = storage.read_bytes(training_set.certificate_uri)
    assert storage.sha256(document) == training_set.certificate_sha256
    certificate = Certificate.model_validate_json(document)
    assert certificate.rows_in == certificate.rows_out == training_set.rows
    assert {v.read.view: v.reasons for v in certificate.views} == training_set.null_reasons
    table = training_sets.read_training_set(training_set.uri)
    offline = settings.uri("offline")
    assert verify(certificate, table=table, offline_uri=offline, plan=training_set.plan) == ()


def test_another_definition_or_transform_is_told(made):
    _, _, training_set = made
    certificate = Certificate.model_validate_json(storage.read_bytes(training_set.certificate_uri))
    plan = training_set.plan
    views = (plan.views[0].model_copy(update={"ttl_seconds": 1.0}), *plan.views[1:])
    pins = (plan.transforms[0].model_copy(update={"source_sha256": "0"}), *plan.transforms[1:])
    other = plan.model_copy(update={"views": views, "transforms": pins, "definitions_sha256": "x"})
    assert verify(certificate, plan=other) == (
        "the feature definitions have changed",
        f"view {views[0].view} is read otherwise",
        f"transform {pins[0].name} has another source",
    )


def test_the_same_inputs_have_the_same_training_set_and_certificate(made):
    settings, spec, training_set = made
    again = training_sets.make_training_set(settings, spec, since=None, until=UNTIL)
    assert again == training_set
