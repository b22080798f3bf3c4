"""What can go wrong while serving, and the one table from error to HTTP status.

ServingError                  the server could not do its work
├── RuntimeFailed             the library that runs the model reported an error
│   └── OutOfMemory           a batch that does not fit into memory
├── (serving/runtimes/forest)  why the kernel for forests does not answer, and XGBoost does
├── DeviceMissing             a GPU was asked for and cannot be used (a UsageError)
├── NotFinite                 the model answered with NaN or infinity
├── OutOfRange                the model answered with what its task cannot mean
├── PlaneFailed               a fault in the server's own code
├── Overloaded                more requests than the server can answer in time
├── DeadlineExceeded          the caller's time was over before the answer was computed
├── TrialFailed               a bundle that could not be tried in a child
├── ModelNotReady             a model that should answer, and does not now
├── ModelTooLarge             a model that does not fit into the memory for models
├── OnlineStoreFailing        features cannot be read now
│   └── FeatureRequired       a row without a feature that its model must have
├── GrpcMissing           a gRPC port was asked for, and gRPC is not installed (a UsageError)
├── PortTaken                 the address cannot be listened on (a UsageError)
├── TooManyConnections        more clients than the server takes
└── RequestRefused            the caller sent what cannot be answered (a UsageError)
    ├── HeadRefused           not a head of HTTP/1.1, or one that says two things at once
    ├── HeadTooLarge          more bytes of headers than the server takes
    ├── HeadTooSlow           a head that did not arrive in time
    ├── EncodingRefused       a compressed body
    ├── BodyRefused           not JSON, or JSON that says two things at once
    ├── BodyTooLarge          more bytes or rows than the server takes
    ├── BodyTooSlow           a body that did not arrive in time
    ├── FieldsRefused         well-formed JSON with wrong fields or values
    ├── ModelControlOff       models are loaded and unloaded by nobody who calls
    └── ModelNotServed        a model or version that this server does not run
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headrace.errors import BundleRefused, HeadraceError, NameRefused, UnknownName, UsageError


class ServingError(HeadraceError):
    """Base of every error that the server raises on purpose."""


class RuntimeFailed(ServingError):
    """The library that runs the model reported an error."""

    def __init__(self, action: str, reason: str, *, library: str = "XGBoost") -> None:
        self.action, self.reason, self.library = action, reason, library
        super().__init__(f"{library} could not {action}: {reason}")


class OutOfMemory(RuntimeFailed):
    """A batch does not fit into the memory of its device."""


class DeviceMissing(ServingError, UsageError):
    """A GPU was asked for that this process does not have, or that a library cannot use."""

    def __init__(self, library: str, reason: str) -> None:
        self.library, self.reason = library, reason
        super().__init__(f"{library} cannot compute on a GPU: {reason}.")


class NotFinite(ServingError):
    """The model answered with NaN or infinity, which JSON cannot carry."""

    def __init__(self, digest: str, row: int, value: float) -> None:
        self.digest, self.row, self.value = digest, row, value
        super().__init__(
            f"bundle {digest[:12]} answered {value} for row {row}: roll the release back to a "
            "bundle that gives finite answers."
        )


class OutOfRange(ServingError):
    """The model answered with a number that its task cannot mean."""

    def __init__(self, digest: str, row: int, value: float, *, task: str, expected: str) -> None:
        self.digest, self.row, self.value, self.task = digest, row, value, task
        super().__init__(
            f"bundle {digest[:12]} answered {value:g} for row {row}, but its task is {task}, whose "
            f"answers are {expected}: roll the release back to a bundle that keeps to its task."
        )


class PlaneFailed(ServingError):
    """A fault in the server's own code; the traceback is in its log."""

    def __init__(self, step: str) -> None:
        self.step = step
        super().__init__(f"the server failed to {step}: its log has the traceback.")


class Overloaded(ServingError):
    """More requests wait than the server can answer in time."""

    def __init__(self, why: str, *, retry_after_seconds: int = 1) -> None:
        self.why, self.retry_after_seconds = why, retry_after_seconds
        super().__init__(
            f"the server is overloaded: {why}. Send the request again in "
            f"{retry_after_seconds} s, or start more servers."
        )


class DeadlineExceeded(ServingError):
    """The caller's time was over before the answer was computed."""

    def __init__(self, late_seconds: float) -> None:
        self.late_seconds = late_seconds
        super().__init__(
            f"the deadline of the request was over {late_seconds:.3f} s before its turn came, so "
            "nothing was computed: allow more time, or send fewer requests at once."
        )


class TrialFailed(ServingError):
    """A bundle could not be tried in a child; trying again may do."""

    def __init__(self, digest: str, reason: str) -> None:
        self.digest, self.reason = digest, reason
        super().__init__(f"bundle {digest[:12]} could not be tried before it is loaded: {reason}")


class ModelNotReady(ServingError):
    """A model that this server should run, and cannot at this moment."""

    def __init__(self, model: str, reason: str, load_seconds: float = 1.0) -> None:
        self.model, self.reason = model, reason or "it is being loaded"
        self.retry_after_seconds = max(1, math.ceil(load_seconds))
        super().__init__(
            f"model {model!r} does not answer now: {self.reason}. Send the request again in "
            f"{self.retry_after_seconds} s."
        )


class ModelTooLarge(ServingError):
    """A model that does not fit into the memory for models, whichever others leave."""

    def __init__(self, model: str, size_bytes: int, budget_bytes: int) -> None:
        self.model, self.size_bytes, self.budget_bytes = model, size_bytes, budget_bytes
        super().__init__(
            f"model {model!r} takes {size_bytes / 2**20:,.1f} MiB and cannot have them: all models "
            f"together may take {budget_bytes / 2**20:,.0f} MiB; raise "
            "HEADRACE_SERVER_MODEL_MEMORY_MB."
        )


class OnlineStoreFailing(ServingError):
    """Features cannot be read now."""

    def __init__(self, reason: object, *, of_rows: bool = False) -> None:
        self.reason = reason
        self.of_rows = of_rows
        """Whether it lies in what certain rows ask: others can be read."""
        super().__init__(
            f"features cannot be read: {reason} Requests of raw features are still answered."
        )


class FeatureRequired(OnlineStoreFailing):
    """A row lacks a feature that its model must have: the plan's policy is ``error``."""

    def __init__(self, reason: str, keys: Mapping[str, object]) -> None:
        self.keys = dict(keys)
        ServingError.__init__(
            self,
            f"{reason} for {', '.join(f'{name} {key!r}' for name, key in keys.items()) or 'all'}; "
            "ask for another entity, or let its features be materialised.",
        )
        self.reason, self.of_rows = reason, True


class GrpcMissing(ServingError, UsageError):
    """A gRPC port was asked for, and gRPC is not installed."""

    def __init__(self, package: str) -> None:
        self.package = package
        super().__init__(
            f"gRPC needs the package {package!r}, which is not installed: "
            "pip install 'headrace[grpc]', or leave HEADRACE_SERVER_GRPC_PORT out."
        )


class PortTaken(ServingError, UsageError):
    """The address cannot be listened on."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        self.host, self.port, self.reason = host, port, reason
        super().__init__(
            f"cannot listen on {host}:{port}: {reason}. "
            "Choose another --port, or end the process that has this one."
        )


class TooManyConnections(ServingError):
    """More clients than the server takes."""

    retry_after_seconds = 1

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(
            f"this server has all the {limit:,} connections it takes: use the ones you have again, "
            "or try in a second."
        )


class RequestRefused(ServingError, UsageError):
    """The caller sent what cannot be answered."""


class HeadRefused(RequestRefused):
    """What came is not a head of HTTP/1.1, or can be read in two ways."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the request is refused: {reason}.")


class HeadTooLarge(RequestRefused):
    """More bytes of headers than the server takes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(
            f"the headers are more than the {limit:,} bytes this server takes: send fewer."
        )


class HeadTooSlow(RequestRefused):
    """The head did not arrive in time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"the headers did not arrive within {seconds:g} s: send them at once.")


class EncodingRefused(RequestRefused):
    """A compressed body, whose size nobody knows before it is unpacked."""

    def __init__(self, encoding: str) -> None:
        self.encoding = encoding
        super().__init__(
            f"Content-Encoding {encoding[:40]!r} is not supported: send the body as it is, "
            "without that header."
        )


class BodyRefused(RequestRefused):
    """The body is not JSON, or is JSON that says two things at once."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the body is refused: {reason}.")


class BodyTooLarge(RequestRefused):
    """More bytes or rows than the server takes in one request."""

    def __init__(self, what: str, limit: int, unit: str) -> None:
        self.what, self.limit, self.unit = what, limit, unit
        super().__init__(
            f"{what} is more than the {limit:,} {unit} this server takes in one request: "
            "send several smaller requests."
        )


class BodyTooSlow(RequestRefused):
    """The body did not arrive in time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"the body did not arrive within {seconds:g} s: send it again, faster.")


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a request."""

    message: str
    """The field, the value and what would have been right."""
    field: str | None = None
    row: int | None = None
    value: str | None = None
    """As the caller wrote it, in JSON, cut where it is long."""
    remedy: str | None = None
    """What to write instead."""


class FieldsRefused(RequestRefused):
    """Well-formed JSON with wrong fields or values."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        more = len(self.problems) - 1
        tail = f" ({more} more in 'problems')" if more else ""
        super().__init__(self.problems[0].message + tail)


class ModelNotServed(RequestRefused):
    """A model or version that this server does not run."""

    def __init__(self, kind: str, asked: str, served: str) -> None:
        self.kind, self.asked, self.served = kind, asked, served
        super().__init__(f"{kind} {asked!r} is not served here; this server runs {served!r}.")


class ModelControlOff(RequestRefused):
    """Models of this server are loaded and unloaded by nobody who calls it."""

    def __init__(self) -> None:
        super().__init__(
            "callers may not load or unload models here; "
            "HEADRACE_SERVER_MODEL_CONTROL=true would let them."
        )


HTTP_STATUS: dict[type[HeadraceError], int] = {
    HeadRefused: 400,
    BodyRefused: 400,
    ModelControlOff: 403,
    ModelNotServed: 404,
    UnknownName: 404,
    HeadTooSlow: 408,
    BodyTooSlow: 408,
    BundleRefused: 409,
    BodyTooLarge: 413,
    EncodingRefused: 415,
    FeatureRequired: 422,
    FieldsRefused: 422,
    NameRefused: 422,
    HeadTooLarge: 431,
    TooManyConnections: 503,
    ModelNotReady: 503,
    ModelTooLarge: 503,
    OnlineStoreFailing: 503,
    Overloaded: 503,
    DeadlineExceeded: 504,
}
"""The status of each error; every other one is the server's own failure."""


def http_status(error: HeadraceError) -> int:
    """The HTTP status that tells ``error``; 500 for what is not the caller's doing."""
    return next((HTTP_STATUS[kind] for kind in type(error).__mro__ if kind in HTTP_STATUS), 500)
