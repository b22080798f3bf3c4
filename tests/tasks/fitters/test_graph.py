import sys
import types
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from headrace.errors import SpecRefused, TransformRefused
from headrace.spec import (
    BundleNode,
    EnsembleTrainer,
    FunctionNode,
    GraphTrainer,
    Member,
    XGBoostTrainer,
)
from headrace.transform import transform


def trees(depth):
    return XGBoostTrainer(rounds=10, parameters={"max_depth": depth, "nthread": 1})


@transform("a", "b")
def higher(a, b):
    return np.fmax(a, b)


@transform("a")
def centred(a):
    return a - a.mean()


@pytest.fixture(autouse=True)
def _functions(monkeypatch):
    module = types.ModuleType("graphs")
    for function in (higher, centred):
        setattr(module, function.output, replace(function, name=f"graphs.{function.output}"))
    monkeypatch.setitem(sys.modules, "featurestore.transforms.graphs", module)


@pytest.fixture
def members(workshop, spec):
    def make(until_day=60):
        return [
            workshop.bundle(spec(trees(depth), name=f"trees_{depth}"), until_day=until_day)[0]
            for depth in (1, 4)
        ]

    return make


def graph_of(digests, function="graphs.higher", inputs=("one", "two")):
    nodes = [
        BundleNode(name=n, member=Member(digest=d))
        for n, d in zip(["one", "two"], digests, strict=False)
    ]
    last = FunctionNode(name="answer", function=function, inputs=inputs)
    return GraphTrainer(nodes=(*nodes, last), output="answer")


def test_a_graph_of_bundles_and_a_function_is_a_bundle(workshop, spec, members):
    digests = members()
    digest, card = workshop.bundle(spec(graph_of(digests)))
    rows = np.random.default_rng(1).normal(size=(300, 4)).astype(np.float32)
    one, two = (workshop.load(member).predict(rows) for member in digests)
    predictor = workshop.load(digest)
    assert predictor.predict(rows).tobytes() == np.fmax(one, two).tobytes()
    assert card.metrics["roc_auc"] > 0.85
    explained = predictor.explain(rows[:2])
    np.testing.assert_allclose(
        explained.base + explained.contributions.sum(1), np.fmax(one, two)[:2], atol=1e-6
    )


def test_what_does_not_fit_together_is_refused_when_the_graph_is_built(workshop, spec, members):
    digests = members()
    with pytest.raises(SpecRefused, match="node 'answer' takes 'three', which is none of"):
        workshop.bundle(spec(graph_of(digests, inputs=("one", "three"))))
    with pytest.raises(SpecRefused, match=r"graphs.higher takes a, b, and is given one"):
        workshop.bundle(spec(graph_of(digests, inputs=("one",))))
    with pytest.raises(SpecRefused, match="no transform in graphs is named 'lower'"):
        workshop.bundle(spec(graph_of(digests, function="graphs.lower")))
    with pytest.raises(SpecRefused, match="node 'two' feeds nothing"):
        workshop.bundle(spec(graph_of(digests, inputs=("one", "one"))))


def test_a_function_that_looks_at_other_rows_is_refused(workshop, spec, members):
    one = BundleNode(name="one", member=Member(digest=members()[0]))
    last = FunctionNode(name="answer", function="graphs.centred", inputs=("one",))
    with pytest.raises(TransformRefused, match=r"graphs\.centred .*among others"):
        workshop.bundle(spec(GraphTrainer(nodes=(one, last), output="answer")))


def test_a_circle_is_refused_where_the_spec_is_written():
    nodes = [
        FunctionNode(name="one", function="graphs.centred", inputs=("two",)),
        FunctionNode(name="two", function="graphs.centred", inputs=("one",)),
    ]
    with pytest.raises(ValidationError, match="nodes feed each other in a circle: "):
        GraphTrainer(nodes=tuple(nodes), output="one")


def test_votes_are_counted_by_weight(workshop, spec, members):
    digests = members()
    named = [Member(digest=d, weight=w) for d, w in zip(digests, (1, 3), strict=True)]
    digest, _ = workshop.bundle(spec(EnsembleTrainer(members=tuple(named), combine="vote")))
    rows = np.random.default_rng(1).normal(size=(300, 4)).astype(np.float32)
    one, two = (workshop.load(member).predict(rows) >= 0.5 for member in digests)
    given = workshop.load(digest).predict(rows)
    np.testing.assert_array_equal(given, 0.25 * one + 0.75 * two)
    assert len(set(given.tolist())) > 2


def test_a_regression_does_not_vote(workshop, spec):
    member = workshop.bundle(spec(trees(2), task="regression"))[0]
    other = workshop.bundle(spec(trees(3), task="regression"))[0]
    both = (Member(digest=member), Member(digest=other))
    with pytest.raises(SpecRefused, match="'vote' is for binary models"):
        workshop.bundle(spec(EnsembleTrainer(members=both, combine="vote"), task="regression"))


def test_a_stacked_model_takes_the_members_and_columns(workshop, spec, members):
    digests = members(until_day=45)
    trainer = EnsembleTrainer(
        members=tuple(Member(digest=d) for d in digests),
        combine="stack",
        by=trees(2),
        columns=("c",),
    )
    plan = workshop.training_set(spec(trainer)).plan
    trainer = trainer.model_copy(update={"columns": plan.columns[2:3]})
    digest, card = workshop.bundle(spec(trainer))
    predictor = workshop.load(digest)
    assert predictor.bundle.manifest.runtime == "graph"
    assert card.metrics["roc_auc"] > 0.85
    assert workshop.bundle(spec(trainer))[0] == digest
    unknown = trainer.model_copy(update={"columns": ("colour",)})
    with pytest.raises(SpecRefused, match=r"trainer\.columns names 'colour', which is none of"):
        workshop.bundle(spec(unknown))
