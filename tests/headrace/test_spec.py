import pytest
from pydantic import ValidationError

from headrace.errors import SpecRefused, UnknownName
from headrace.spec import Gate, LabelSource, ModelSpec, RequestField, load_spec, model_names

LABEL = LabelSource(
    table="labels",
    entity_keys=("customer",),
    event_timestamp="asked_at",
    created_timestamp="known_at",
    column="churned",
)
FIELDS = {
    "name": "churn",
    "description": "Whether a customer leaves.",
    "owner": "growth",
    "feature_service": "churn_v1",
    "label": LABEL,
    "scoring_table": "customers",
    "gates": (Gate(metric="roc_auc", at_least=0.7),),
}


def test_a_whole_spec_is_frozen():
    spec = ModelSpec(**FIELDS)
    with pytest.raises(ValueError, match="frozen"):
        spec.name = "other"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"name": "Churn Model"}, "model name 'Churn Model' is refused"),
        ({"owner": ""}, "owner: String should have at least 1 character"),
        ({"gates": ()}, "gates: Tuple should have at least 1 item"),
        ({"treiner": 1}, "treiner: Extra inputs are not permitted"),
        ({"task": "ranking"}, "task: Input should be 'binary' or 'regression'"),
        ({"gates": (Gate(metric="rmse", at_most=3),)}, "a binary model has no metric 'rmse'"),
        (
            {"gates": (Gate(metric="roc_auc", at_least=0.7, by="city"),)},
            "gate by 'city': it is none of the label's entity keys",
        ),
        ({"inputs_from_request": ("age",)}, "names 'age', which request does not have"),
        (
            {
                "request": (RequestField(name="at", dtype="timestamp", description="when"),),
                "inputs_from_request": ("at",),
            },
            "names 'at', which is not a number",
        ),
    ],
)
def test_a_wrong_field_fails_with_a_sentence(change, sentence):
    with pytest.raises((SpecRefused, Exception), match=sentence.replace("(", r"\(")):
        ModelSpec(**{**FIELDS, **change})


def test_a_gate_needs_exactly_one_bound():
    with pytest.raises(ValueError, match="write either at_least or at_most"):
        Gate(metric="roc_auc")
    with pytest.raises(ValueError, match="write either at_least or at_most"):
        Gate(metric="roc_auc", at_least=0.1, at_most=0.9)


def test_every_model_of_the_project_loads():
    assert "flight_delay" in model_names()
    assert all(load_spec(name).name == name for name in model_names())


def test_an_unknown_model_lists_the_known_ones():
    with pytest.raises(UnknownName, match="no model is named 'flight_dealy'; did you mean"):
        load_spec("flight_dealy")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"dtype": "float64", "one_of": (1, 2)}, "this one is float64"),
        ({"dtype": "int64", "one_of": ("a",)}, "this one is int64"),
        ({"dtype": "string", "one_of": ("a",), "at_least": 1}, "either one_of or bounds"),
        ({"dtype": "string", "one_of": ()}, "at least 1 item"),
    ],
)
def test_values_that_are_listed_must_be_of_the_fields_type(fields, told):
    with pytest.raises(ValidationError, match=told):
        RequestField(name="size", description="size", **fields)
