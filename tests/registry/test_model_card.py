from headrace.bundle import Lineage
from headrace.plan import FeaturePlan, FeatureRead, JoinKey, TransformPin, ViewRead
from registry.gates import check_gates
from registry.model_card import render_card

LINEAGE = Lineage(
    code_revision="abc123",
    training_set_sha256="f" * 64,
    training_rows=8000,
    trained_from="2013-01-01T00:00:00Z",
    trained_until="2013-03-01T00:00:00Z",
    tested_until="2013-04-01T00:00:00Z",
)
PLAN = FeaturePlan(
    project="headrace",
    feature_service="flight_delay",
    definitions_sha256="d" * 64,
    event_timestamp="scheduled",
    views=(
        ViewRead(
            view="weather",
            table="weather",
            join_keys=(JoinKey(name="origin"),),
            event_timestamp="observed",
            created_timestamp="written",
            ttl_seconds=10_800,
            features=(FeatureRead(name="wind", dtype="DOUBLE"),),
        ),
    ),
    request=(),
    inputs_from_request=("distance",),
    transforms=(
        TransformPin(name="flights.hour", inputs=("scheduled",), output="hour", source_sha256="0"),
    ),
)


def render(spec, card):
    gates = check_gates(spec.gates, card)
    return render_card(spec, plan=PLAN, lineage=LINEAGE, card=card, gates=gates)


def test_the_card_tells_what_the_model_is_made_of_and_how_good_it_is(spec, card):
    text = render(spec, card)
    for fact in (
        "# flight_delay",
        "| Tested on | 2013-03-01 00:00 UTC until 2013-04-01 00:00 UTC |",
        "Predicts whether a flight arrives late.",
        "| Owner | operations |",
        "| all |  | 2000 | 0.7400 | 0.4100 | 0.1300 |",
        "| origin | LGA | 700 |  |  | 0.2000 |",
        "| passed | roc_auc 0.7400 (2000 rows) must be at least 0.7: passed. |",
        "| view `weather` | at most 3 h | wind |",
        "| transform `flights.hour` | at request time | hour of scheduled |",
        "| rounds | 300 |",
        "beyond a PSI of 0.2 nats",
        "origin EWR, has 100 rows",
    ):
        assert fact in text


def test_equal_facts_give_equal_cards(spec, card):
    assert render(spec, card) == render(spec, card)


def test_a_value_of_the_data_cannot_break_a_table(spec, card):
    odd = card.slices[0].model_copy(update={"value": "a|b\nc"})
    text = render(spec, card.model_copy(update={"slices": (odd,)}))
    assert "| origin | a\\|b c | 1200 |" in text
