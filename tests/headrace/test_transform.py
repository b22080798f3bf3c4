import numpy as np
import pytest

from headrace.errors import BundleRefused, NameRefused, UnknownName
from headrace.plan import FeaturePlan, TransformPin, pin, pinned_transforms
from headrace.transform import find_transform


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
