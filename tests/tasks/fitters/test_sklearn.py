import numpy as np
import pytest

from headrace.errors import SpecRefused
from headrace.spec import SklearnTrainer

PIPELINE = """
def logistic(C):
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    return make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(C=C))

def number():
    return 7
"""


def boosted(kind="Classifier", **parameters):
    estimator = f"sklearn.ensemble:HistGradientBoosting{kind}"
    return SklearnTrainer(estimator=estimator, parameters={"max_iter": 20, **parameters})


def test_a_pipeline_becomes_a_bundle_without_pickle_that_ranks(workshop, spec, model_file):
    estimator = f"{model_file(PIPELINE)}:logistic"
    made = spec(SklearnTrainer(estimator=estimator, parameters={"C": 0.5}))
    digest, card = workshop.bundle(made)
    predictor = workshop.load(digest)
    assert card.metrics["roc_auc"] > 0.85
    assert predictor.bundle.manifest.runtime == "onnx"
    assert predictor.bundle.manifest.parameters == {"estimator": estimator, "C": 0.5}
    assert workshop.bundle(made)[0] == digest


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_boosted_trees_take_missing_values_and_answer_as_scikit_learn_does(workshop, spec, task):
    from sklearn import ensemble

    kind = {"binary": "Classifier", "regression": "Regressor"}[task]
    made = spec(boosted(kind), task=task)
    digest, card = workshop.bundle(made)
    assert card.metrics["roc_auc"] > 0.85 if task == "binary" else card.metrics["rmse"] < 8

    from tasks.training_sets import labels_of, matrix_of, part, read_training_set

    given = workshop.training_set(made)
    table = part(read_training_set(given.uri), made.label, given.train)
    matrix = matrix_of(table, given.plan.columns)
    alone = getattr(ensemble, f"HistGradientBoosting{kind}")(max_iter=20, random_state=0)
    alone.fit(matrix, labels_of(table))
    wanted = alone.predict_proba(matrix)[:, 1] if task == "binary" else alone.predict(matrix)
    np.testing.assert_allclose(workshop.load(digest).predict(matrix), wanted, rtol=1e-4)


@pytest.mark.parametrize(
    ("estimator", "parameters", "says"),
    [
        ("sklearn.nowhere:X", {}, "'sklearn.nowhere:X' is not there: No module named"),
        ("sklearn.svm:Nothing", {}, "is not there: module 'sklearn.svm' has no attribute"),
        ("own_model:number", {}, "gives a int, which has no fit; give a scikit-learn estimator"),
        ("own_model:logistic", {"c": 1}, r"does not take trainer.parameters {'c': 1}: .*'c'"),
        ("sklearn.linear_model:LogisticRegression", {}, "cannot be fitted: Input X contains NaN"),
        (
            "sklearn.ensemble:HistGradientBoostingClassifier",
            {"max_iter": -1},
            "cannot be fitted: The 'max_iter' parameter .* must be an int",
        ),
        ("sklearn.linear_model:Ridge", {}, "has no predict_proba, which task 'binary' asks"),
        (
            "sklearn.ensemble:HistGradientBoostingClassifier",
            {"max_iter": 2, "loss": "own"},
            "cannot be fitted: The 'loss' parameter",
        ),
    ],
)
def test_what_cannot_be_fitted_is_refused_and_named(
    workshop, spec, model_file, estimator, parameters, says
):
    model_file(PIPELINE)
    with pytest.raises(SpecRefused, match=says):
        workshop.bundle(spec(SklearnTrainer(estimator=estimator, parameters=parameters)))


def test_what_does_not_convert_is_refused_and_named(workshop, spec, model_file):
    source = """
from sklearn.base import BaseEstimator, ClassifierMixin
import numpy as np

class Own(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        self.classes_ = np.array([0, 1])
        return self
    def predict_proba(self, X):
        return np.full((len(X), 2), 0.5)
"""
    with pytest.raises(SpecRefused, match=r"'own_model:Own' does not convert to ONNX: .*Own"):
        workshop.bundle(spec(SklearnTrainer(estimator=f"{model_file(source)}:Own")))
