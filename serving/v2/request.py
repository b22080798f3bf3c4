"""An inference request of the protocol, whichever way it came, and the query that it asks.

Parameters that are known: ``timeout`` (microseconds; nothing is computed for a request that is
later), ``priority`` (ignored, and the answer says so) and ``binary_data_output``. The protocol lets
a server ignore every other one.
"""

from dataclasses import dataclass, field
from typing import Any

from headrace.bundle import OUTPUT
from serving.dataplane import ServedModel
from serving.query import Query
from serving.schema import show
from serving.v2.inputs import read_inputs
from serving.v2.tensors import Tensor, refused

STATUS = "status__"
"""What the outputs begin with that say, for each feature view, what became of its read."""
_LONGEST_ID = 1024


@dataclass(slots=True, frozen=True)
class Reply:
    """What the caller wants back."""

    outputs: tuple[tuple[str, bool], ...] = ((OUTPUT, False),)
    """The outputs, each with whether its values are wanted as raw bytes."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """What the answer says beside its outputs."""


USUAL = Reply()


@dataclass(slots=True, eq=False)
class TensorQuery(Query):
    """A query that knows what its caller wants back."""

    reply: Reply = USUAL


@dataclass(slots=True)
class InferRequest:
    """A request as it was sent; its tensors' data is not looked at yet."""

    id: str | None
    tensors: dict[str, Tensor]
    outputs: list[tuple[str, dict[str, Any]]]
    """The outputs that are asked for, with their parameters; none: every output."""
    parameters: dict[str, Any]

    def query(
        self,
        model: ServedModel,
        *,
        edge: str,
        max_rows: int,
        request_id: str,
        received: float,
        deadline: float | None = None,
        traceparent: str | None = None,
        binary: bool = False,
    ) -> TensorQuery:
        """Return the query that this request asks of ``model``.

        Args:
            model: who answers.
            edge: the door it came through.
            max_rows: the most rows that a request may have.
            request_id: its id.
            received: ``time.perf_counter()`` when it had arrived.
            deadline: from when on nobody waits for the answer; ``timeout`` may make it earlier.
            traceparent: where it belongs in a trace.
            binary: whether outputs are raw bytes where the request does not say.

        Raises:
            FieldsRefused: naming the tensor, output or parameter, and what it should be.
            BodyTooLarge: for more than ``max_rows`` rows.
        """
        inputs = read_inputs(model, self.tensors, max_rows=max_rows)
        return TensorQuery(
            model,
            edge,
            inputs.rows,
            request_id,
            received,
            features=inputs.features,
            instances=inputs.instances,
            overrides=inputs.overrides,
            deadline=self._deadline(received, deadline),
            traceparent=traceparent,
            reply=self._reply(model, binary=binary, keyed=inputs.instances is not None),
        )

    def _deadline(self, received: float, deadline: float | None) -> float | None:
        timeout = self.parameters.get("timeout", 0)
        if type(timeout) is not int or not 0 <= timeout < 2**63:
            raise refused(f"parameter 'timeout' = {show(timeout)}; write microseconds, like 50000")
        asked = received + timeout / 1e6 if timeout else None
        return min((moment for moment in (asked, deadline) if moment is not None), default=None)

    def _reply(self, model: ServedModel, *, binary: bool, keyed: bool) -> Reply:
        binary = _flag(self.parameters, "binary_data_output", default=binary)
        names = output_names(model, keyed=keyed)
        for name, parameters in self.outputs:
            if name not in names:
                raise refused(_no_output(name, names, model), "outputs")
            if "classification" in parameters:
                raise refused(f"output {name!r}: the classification extension is not offered")
        asked = self.outputs or [(name, {}) for name in names]
        return Reply(
            tuple((name, _flag(said, "binary_data", default=binary)) for name, said in asked),
            {"priority": "ignored"} if "priority" in self.parameters else {},
        )


def output_names(model: ServedModel, *, keyed: bool) -> list[str]:
    """The outputs of ``model``; statuses of reads are known only where features are read."""
    views = model.predictor.plan.views if keyed else ()
    return [OUTPUT, *(STATUS + view.view for view in views)]


def checked_id(given: Any) -> str | None:
    """The caller's id, where it gave one.

    Raises:
        FieldsRefused: if it is not text, or too long to be kept.
    """
    if given is None or given == "":
        return None
    if not isinstance(given, str):
        raise refused(f"id = {show(given)} is not text; write a string, or leave it out", "id")
    if len(given) > _LONGEST_ID:
        raise refused(f"id has {len(given):,} characters; write at most {_LONGEST_ID:,}", "id")
    return given


def _no_output(name: str, names: list[str], model: ServedModel) -> str:
    if name in output_names(model, keyed=True):
        return f"output {name!r} is of keyed requests alone: raw features are not read"
    wanted = f"one: {names[0]!r}" if len(names) == 1 else ", ".join(map(repr, names))
    return f"there is no output {show(name)}; the model has {wanted}"


def _flag(parameters: dict[str, Any], name: str, *, default: bool) -> bool:
    given = parameters.get(name, default)
    if not isinstance(given, bool):
        raise refused(f"parameter {name!r} = {show(given)}; write true or false")
    return given
