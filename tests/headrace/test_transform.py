import importlib
import sys

import numpy as np
import pytest

from headrace.errors import BundleRefused, NameRefused, TransformRefused, UnknownName
from headrace.plan import FeaturePlan, TransformPin, pin, pinned_transforms
from headrace.transform import Transform, check_row_by_row, find_transform


def plan_with(*pins: TransformPin) -> FeaturePlan:
    return FeaturePlan(
        project="p",
        feature_service="s",
        definitions_sha256="0" * 64,
        event_timestamp="at",
        views=(),
        request=(),
        inputs_from_request=(),
        transforms=pins,
    )


def test_a_transform_is_found_by_its_name_and_gives_floats():
    found = find_transform("flights.scheduled_hour")
    made = found(np.array(["2013-07-01T12:30"], "datetime64[us]"))
    assert made.dtype == np.float64
    assert made.tolist() == [8.5]


def test_an_unknown_transform_lists_the_known_ones():
    with pytest.raises(UnknownName, match="scheduled_hour"):
        find_transform("flights.scheduled_huor")
    with pytest.raises(UnknownName, match="flights"):
        find_transform("trains.delay")
    with pytest.raises(NameRefused):
        find_transform("../os.system")


def test_a_transform_whose_source_changed_refuses_the_bundle():
    good = pin(find_transform("flights.scheduled_hour"))
    assert [t.name for t in pinned_transforms(plan_with(good), "d" * 64)] == [good.name]
    changed = good.model_copy(update={"source_sha256": "0" * 64})
    with pytest.raises(BundleRefused, match=r"flights\.scheduled_hour is not the one it was train"):
        pinned_transforms(plan_with(changed), "d" * 64)


def hash_in(tmp_path, monkeypatch, helper: str) -> str:
    """The hash of one transform whose helper, in another module, is as given."""
    package = tmp_path / str(len(list(tmp_path.iterdir()))) / "pinned"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "helper.py").write_text(helper)
    (package / "made.py").write_text(
        "from headrace.transform import transform\n"
        "from pinned.helper import shift\n\n\n"
        "@transform('x')\ndef shifted(x):\n    return [shift(v) for v in x]\n\n\n"
        "def unused():\n    return 1\n"
    )
    monkeypatch.syspath_prepend(str(package.parent))
    for name in [name for name in sys.modules if name.split(".")[0] == "pinned"]:
        monkeypatch.delitem(sys.modules, name)
    return importlib.import_module("pinned.made").shifted.source_sha256


HELPER = "STEP = 2\n\n\ndef shift(v):\n    return v + STEP\n"


@pytest.mark.parametrize(
    "changed",
    [HELPER.replace("v + STEP", "v - STEP"), HELPER.replace("STEP = 2", "STEP = 3")],
)
def test_a_change_in_what_a_transform_uses_changes_its_hash(tmp_path, monkeypatch, changed):
    before = hash_in(tmp_path, monkeypatch, HELPER)
    assert hash_in(tmp_path, monkeypatch, changed) != before


def test_a_change_that_a_transform_does_not_use_leaves_its_hash(tmp_path, monkeypatch):
    before = hash_in(tmp_path, monkeypatch, HELPER)
    assert hash_in(tmp_path, monkeypatch, "OTHER = 1\n" + HELPER) == before


def made(function, *inputs):
    return Transform(name="t.made", inputs=inputs, function=function, source_sha256="")


def drained(x):
    x[:] = 0
    return x


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda x: x - x.mean(), "row 0 gives .* among others and .* alone"),
        (lambda x: np.arange(len(x)), "row 62 gives 16.0 among others and .0.0. alone"),
        (lambda x: np.float64(3.0), r"it gives shape \(\) for 256 rows"),
        (lambda x: x[:-1], r"it gives shape \(255,\) for 256 rows"),
        (drained, "it changes its inputs"),
    ],
)
def test_a_transform_of_more_than_one_row_is_refused_before_anything_learns_from_it(
    function, sentence
):
    column = np.random.default_rng(1).normal(size=1000)
    with pytest.raises(TransformRefused, match=sentence):
        check_row_by_row(made(function, "x"), [column])


@pytest.mark.parametrize("rows", [0, 1, 2, 255, 1000])
def test_a_transform_of_each_row_alone_is_fine_whatever_its_inputs(rows):
    lengths = made(lambda names, xs: np.array([len(n or "") for n in names]) / xs, "names", "xs")
    names = np.array([None if i % 3 else "wind" * i for i in range(rows)], object)
    xs = np.where(np.arange(rows) % 2, np.nan, 2.0)
    check_row_by_row(lengths, [names, xs])
