"""What can go wrong between a trained model and its place in the registry.

RegistryError                 base of this room
├── RegistryUnreachable       the registry does not answer; nothing is known, nothing was changed
├── RegistryRefused           the registry answered that it will not take this (UsageError)
├── GatesFailed               a model that does not keep what its spec promises
└── ComparisonMismatch        a comparison of another metric than the policy decides by (UsageError)

That a model or alias does not exist is no error of this room: look-ups return None, and changes
raise ``headrace.errors.UnknownName``.
"""

import re
from collections.abc import Iterable

from headrace.errors import HeadraceError, UsageError


class RegistryError(HeadraceError):
    """Base of every error of this room."""


class RegistryUnreachable(RegistryError):
    """The registry does not answer."""

    def __init__(self, uri: str, reason: object) -> None:
        self.uri, self.reason = _without_password(uri), _without_password(str(reason))
        super().__init__(
            f"model registry {self.uri} does not answer: {self.reason}. "
            "Check HEADRACE_REGISTRY and that its server or file can be reached."
        )


class RegistryRefused(RegistryError, UsageError):
    """The registry answered that it will not take this."""

    def __init__(self, reason: object) -> None:
        self.reason = _without_password(str(reason))
        super().__init__(f"the model registry refuses this: {self.reason}")


class GatesFailed(RegistryError):
    """A model that does not keep what its spec promises."""

    def __init__(self, sentences: Iterable[str]) -> None:
        self.sentences = tuple(sentences)
        listed = "\n".join(f"- {sentence}" for sentence in self.sentences)
        super().__init__(
            f"{len(self.sentences)} gates failed:\n{listed}\n"
            "Improve the model, or change the gates in its spec on purpose."
        )


class ComparisonMismatch(RegistryError, UsageError):
    """A comparison of another metric or confidence than the policy decides by."""

    def __init__(self, what: str, compared: object, policy: object) -> None:
        self.what, self.compared, self.policy = what, compared, policy
        super().__init__(
            f"the comparison is by {what} {compared}, the rollout policy decides by {policy}: "
            "compare again with the policy's."
        )


def _without_password(text: str) -> str:
    return re.sub(r"(://[^:/@\s]*):[^@/\s]*@", r"\1:***@", text)
