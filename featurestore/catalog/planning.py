"""Make a feature plan from a model spec and the catalog, refusing what does not fit together."""

import math
from collections.abc import Iterator

from featurestore.catalog.catalog import Catalog, service_reads
from headrace.errors import SpecRefused, UnknownName
from headrace.missing import MissingRule
from headrace.plan import NUMBERS, FeaturePlan, ViewRead, pin
from headrace.spec import ModelSpec
from headrace.transform import find_transform


def plan_for(catalog: Catalog, spec: ModelSpec) -> FeaturePlan:
    """Return what a model of this spec reads: the features of its service, transforms pinned.

    Without a service it reads nothing: its inputs are request fields, and transforms of them.

    Features that are no numbers are read for the transforms: a model's input has none of them.

    Raises:
        UnknownName: for a feature service or a transform that is not there.
        SpecRefused: if the label's entity keys lack a join key of the service, or if what the
            service gives and what the transforms need do not fit.
    """
    service = spec.feature_service
    if service is not None and service not in catalog.services:
        raise UnknownName("feature service", service, catalog.services)
    plan = FeaturePlan(
        project=catalog.project,
        feature_service=service,
        definitions_sha256=catalog.definitions_sha256,
        event_timestamp=spec.label.event_timestamp,
        views=_views(catalog, spec),
        request=spec.request,
        inputs_from_request=spec.inputs_from_request,
        transforms=tuple(pin(find_transform(name)) for name in spec.transforms),
        missing=tuple(_rules(spec)),
    )
    _check_missing(plan, spec)
    _check_keys(plan, spec)
    _check_transforms(plan, spec)
    _check_objects(catalog, plan, spec)
    return plan


def _views(catalog: Catalog, spec: ModelSpec) -> tuple[ViewRead, ...]:
    if spec.feature_service is None:
        return ()
    return tuple(
        view.model_copy(update={"last_known": True})
        if spec.missing.get(view.view) == "last_known"
        else view
        for view in service_reads(catalog, spec.feature_service)
    )


def _rules(spec: ModelSpec) -> Iterator[MissingRule]:
    for name, policy in spec.missing.items():
        if policy != "last_known":
            view, _, feature = name.partition(".")
            default = None if policy == "error" else float(policy)
            yield MissingRule(view=view, feature=feature or None, default=default)


def _check_missing(plan: FeaturePlan, spec: ModelSpec) -> None:
    views = {view.view: view for view in plan.views}
    for name, policy in spec.missing.items():
        view, _, feature = name.partition(".")
        if view not in views:
            known = ", ".join(views) or "none"
            raise SpecRefused(
                spec.name, f"missing names view {view}, which it does not read; it reads {known}"
            )
        numbers = [f.name for f in views[view].features if f.dtype in NUMBERS]
        if feature and policy == "last_known":
            raise SpecRefused(
                spec.name, f"missing says last_known of {name}; that is said of a view: {view}"
            )
        if feature and feature not in numbers:
            raise SpecRefused(
                spec.name,
                f"missing names {name}, which is no number that it reads; "
                f"of {view} these are {', '.join(numbers)}",
            )
        if isinstance(policy, float) and not math.isfinite(policy):
            raise SpecRefused(spec.name, f"missing says {policy} of {name}; write a finite number")


def _check_keys(plan: FeaturePlan, spec: ModelSpec) -> None:
    if missing := sorted(set(plan.entity_keys) - set(spec.label.entity_keys)):
        keys = ", ".join(missing)
        raise SpecRefused(
            spec.name, f"feature service {plan.feature_service} needs {keys} in label.entity_keys"
        )


def _check_transforms(plan: FeaturePlan, spec: ModelSpec) -> None:
    reads = {column for view in plan.views for column in view.columns}
    request = {field.name for field in plan.request} | {plan.event_timestamp, *plan.entity_keys}
    for transform in plan.transforms:
        if unknown := sorted(set(transform.inputs) - reads - request):
            raise SpecRefused(
                spec.name,
                f"transform {transform.name} needs {', '.join(unknown)}, which is neither a "
                f"request field nor a feature of {plan.feature_service or 'a feature service'}",
            )
    if len(set(plan.columns)) < len(plan.columns):
        twice = sorted({c for c in plan.columns if plan.columns.count(c) > 1})
        raise SpecRefused(
            spec.name, f"two inputs are called {', '.join(twice)}; rename the transform"
        )


def _check_objects(catalog: Catalog, plan: FeaturePlan, spec: ModelSpec) -> None:
    if only_feast := catalog.on_demand.get(plan.feature_service or ""):
        raise SpecRefused(
            spec.name,
            f"feature service {plan.feature_service} lists {', '.join(only_feast)}, an on-demand "
            "view, which only Feast computes; write it as a transform in "
            "featurestore/transforms/ and name that in transforms",
        )
    taken = {name for transform in plan.transforms for name in transform.inputs}
    for view in plan.views:
        for column, feature in zip(view.columns, view.features, strict=True):
            if feature.dtype not in NUMBERS and column not in taken:
                raise SpecRefused(
                    spec.name,
                    f"{column} is {feature.dtype}, no number, and no transform takes it; write a "
                    f"transform of it, or a feature service without it",
                )
