import numpy as np
import pytest

from headrace.errors import SpecRefused
from headrace.spec import EnsembleTrainer, Member, XGBoostTrainer
from tasks.fitters.ensemble import stack_log_odds, stack_values


def trees(depth):
    return XGBoostTrainer(rounds=10, parameters={"max_depth": depth, "nthread": 1})


@pytest.fixture
def members(workshop, spec):
    """A factory of two bundles, trained as of a day."""

    def make(*, until_day=60, task="binary"):
        return [
            workshop.bundle(
                spec(trees(depth), name=f"trees_{depth}", task=task), until_day=until_day
            )[0]
            for depth in (1, 4)
        ]

    return make


def of(digests, combine="mean", weights=(1, 3)):
    named = [Member(digest=d, weight=w) for d, w in zip(digests, weights, strict=True)]
    return EnsembleTrainer(members=tuple(named), combine=combine)


def test_a_weighted_mean_of_two_bundles_is_a_bundle(workshop, spec, members):
    digests = members()
    digest, card = workshop.bundle(spec(of(digests)))
    rows = np.random.default_rng(1).normal(size=(300, 4)).astype(np.float32)
    one, two = (workshop.load(member).predict(rows).astype(np.float64) for member in digests)
    given = workshop.load(digest).predict(rows)
    assert given.tobytes() == (0.25 * one + 0.75 * two).astype(np.float32).tobytes()
    assert card.metrics["roc_auc"] > 0.85
    assert workshop.load(digest).bundle.manifest.runtime == "ensemble"


def test_a_champion_is_taken_as_it_is_now(workshop, spec, members):
    digests = members()
    workshop.deploy("trees_1", digests[0])
    trainer = EnsembleTrainer(members=(Member(model="trees_1"), Member(digest=digests[1])))
    digest, _ = workshop.bundle(spec(trainer))
    named = workshop.load(digest).bundle.model
    assert all(member.encode() in named for member in digests)
    other = EnsembleTrainer(members=(Member(model="trees_9"), Member(digest=digests[1])))
    with pytest.raises(SpecRefused, match="'trees_9', whose endpoint runs nothing; deploy it"):
        workshop.bundle(spec(other))


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_a_stack_learns_from_rows_that_no_member_saw(workshop, spec, members, task):
    digests = members(until_day=45, task=task)  # they learned from 30 days; the stack has 15 more
    metric = {"binary": "log_loss", "regression": "rmse"}[task]
    _, stacked = workshop.bundle(spec(of(digests, "stack"), task=task))
    _, mean = workshop.bundle(spec(of(digests, "mean", (1, 1)), task=task))
    assert stacked.metrics[metric] < mean.metrics[metric]


def test_a_stack_without_such_rows_is_refused(workshop, spec, members):
    with pytest.raises(SpecRefused, match=r"'stack' has 0 rows between .* earlier --until"):
        workshop.bundle(spec(of(members(), "stack")))


def test_a_member_that_learned_from_the_holdout_is_refused(workshop, spec, members):
    with pytest.raises(SpecRefused, match=r"learned from rows until 2013-02-15 .*would flatter"):
        workshop.bundle(spec(of(members())), until_day=55)


def test_a_member_of_another_task_or_other_inputs_is_refused(workshop, spec, members):
    with pytest.raises(SpecRefused, match="is a regression model, this one binary"):
        workshop.bundle(spec(of(members(task="regression"))))
    fewer = spec(of(members())).model_copy(update={"inputs_from_request": ("a", "b", "c")})
    with pytest.raises(SpecRefused, match="takes d, which the ensemble does not read"):
        workshop.bundle(fewer)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"members": (Member(model="a"),)}, "at least 2 items"),
        ({"members": (Member(model="a"), Member(model="a"))}, "members name a twice"),
    ],
)
def test_too_few_or_equal_members_are_refused(fields, says):
    with pytest.raises(ValueError, match=says):
        EnsembleTrainer(**fields)


@pytest.mark.parametrize("fields", [{}, {"model": "a", "digest": "0" * 64}])
def test_a_member_is_named_once(fields):
    with pytest.raises(ValueError, match="write either model or digest"):
        Member(**fields)


def test_the_stacks_agree_with_scikit_learn():
    from sklearn.linear_model import LogisticRegression, Ridge

    random = np.random.default_rng(0)
    chances = random.uniform(0.05, 0.95, (500, 2))
    odds = np.log(chances / (1 - chances))
    truth = 1.5 * odds[:, 0] - 0.5 * odds[:, 1] + 0.3
    labels = (random.random(500) < 1 / (1 + np.exp(-truth))).astype(float)
    intercept, weights = stack_log_odds(chances, labels)
    free = LogisticRegression(C=np.inf).fit(odds, labels)
    np.testing.assert_allclose([intercept, *weights], [*free.intercept_, *free.coef_[0]], atol=0.05)
    intercept, weights = stack_values(odds, truth)
    line = Ridge(alpha=1e-9).fit(odds, truth)
    np.testing.assert_allclose([intercept, *weights], [line.intercept_, *line.coef_], atol=0.02)
