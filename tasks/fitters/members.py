"""The bundles that an ensemble or a graph is made of: found, loaded, and fit for it."""

from headrace import release
from headrace.errors import SpecRefused
from headrace.plan import FeaturePlan, ViewRead
from headrace.settings import Settings
from headrace.spec import Member, ModelSpec
from serving.predictor import Predictor, load_predictor
from tasks.training_sets import TrainingSet


def load_member(settings: Settings, spec: ModelSpec, member: Member) -> Predictor:
    """Return the bundle that a spec names.

    Raises:
        SpecRefused: if it names an endpoint that runs nothing.
        BundleRefused: if the bundle is.
    """
    digest = member.digest
    if member.model is not None:
        running = release.current_release(settings.storage_uri, member.model)
        if running is None:
            said = f"trainer names {member.model!r}, whose endpoint runs nothing"
            raise SpecRefused(spec.name, f"{said}; deploy it first, or name a digest")
        digest = running.champion
    assert digest is not None
    return load_predictor(settings.uri("bundles"), digest, threads=0)


def check_member(
    spec: ModelSpec,
    training_set: TrainingSet,
    member: Predictor,
    *,
    given: frozenset[str] = frozenset(),
) -> None:
    """Refuse a bundle that has no place in the spec's model.

    Args:
        spec: the model.
        training_set: its plan and windows.
        member: the bundle.
        given: those of its columns that other nodes of a graph give.

    Raises:
        SpecRefused: if it is of another task, takes what the model does not read or read
            otherwise, or learned from rows that the model is judged on.
    """
    manifest, plan = member.bundle.manifest, training_set.plan
    name = f"member {manifest.model} ({member.digest[:12]})"
    if manifest.task != spec.task:
        raise SpecRefused(spec.name, f"{name} is a {manifest.task} model, this one {spec.task}")
    if problem := _other_inputs(manifest.plan, plan, given):
        raise SpecRefused(spec.name, f"{name} {problem}")
    learned, judged = manifest.lineage.trained_until, training_set.holdout.since
    if learned > judged:
        raise SpecRefused(
            spec.name,
            f"{name} learned from rows until {learned:%Y-%m-%d %H:%M}, and the holdout begins at "
            f"{judged:%Y-%m-%d %H:%M}: its metrics would flatter. Train both with the same "
            "--until and validation.days, or the member earlier",
        )


def _other_inputs(member: FeaturePlan, plan: FeaturePlan, given: frozenset[str]) -> str:
    """What a member reads otherwise than the ensemble; "" if it is the same."""
    if missing := sorted(set(member.columns) - set(plan.columns) - given):
        return f"takes {', '.join(missing)}, which the ensemble does not read"
    known = {_reading(view) for view in plan.views}
    needed = [view for view in member.views if set(view.number_columns) - given]
    if other := [view.view for view in needed if _reading(view) not in known]:
        return f"reads {', '.join(other)} otherwise than the definitions say now; train it again"
    pins = [pin for pin in member.transforms if pin.output not in given]
    if other := [pin.name for pin in pins if pin not in plan.transforms]:
        return f"was trained with another {', '.join(other)}; train it again"
    return ""


def _reading(view: ViewRead) -> str:
    """How a view is read, whichever of its features are."""
    return view.model_copy(update={"features": ()}).model_dump_json()
