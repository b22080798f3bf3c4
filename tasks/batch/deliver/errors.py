"""What can be wrong with a delivery. No message holds a password: none ever reaches these lines.

HeadraceError
├── DeliveryFailed        a store that did not take the rows
└── UsageError
    └── DeliveryRefused   a target that cannot be, or a table that does not fit
"""

from headrace.errors import HeadraceError, UsageError


class DeliveryRefused(UsageError):
    """A target that cannot be, or a table that does not fit."""

    def __init__(self, to: str, reason: str, remedy: str) -> None:
        self.to, self.reason, self.remedy = to, reason, remedy
        super().__init__(f"nothing is delivered to {to}: {reason}. {remedy}")


class DeliveryFailed(HeadraceError):
    """A store that did not take the rows; nothing of them is visible there."""

    def __init__(self, to: str, reason: object) -> None:
        self.to, self.reason = to, reason
        super().__init__(
            f"cannot deliver to {to}: {str(reason).strip()}. The predictions are committed, and "
            "nothing of them is visible there; run the same command again to deliver them."
        )
