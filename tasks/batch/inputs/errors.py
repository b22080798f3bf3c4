"""What can be wrong with the input of a batch prediction.

HeadraceError
├── InputBroken           a file that cannot be read, or does not fit the others
├── InputChanged          a file that is no longer the one the run was planned with
├── InputEmpty            a dataset without a row
└── UsageError
    ├── InputNotFound     a path, URL or glob with nothing behind it
    ├── InputRefused      a dataset in a form that cannot be read rightly
    └── InputTooLarge     a text file beyond what the text formats are for
"""

from headrace.errors import HeadraceError, UsageError


class InputBroken(HeadraceError):
    """A file that cannot be read, or that does not fit the dataset it is in."""

    def __init__(self, uri: str, reason: str, *, remedy: str = "") -> None:
        self.uri, self.reason = uri, reason
        self.remedy = remedy or (
            "Write the file again, or leave it out: with --bad-files skip the others are scored "
            "and this one is named in the report."
        )
        super().__init__(f"{uri} cannot be used: {reason}. {self.remedy}")


class InputChanged(HeadraceError):
    """A file that was written, replaced or deleted after the run was planned."""

    def __init__(self, uri: str, planned: str, found: str) -> None:
        self.uri, self.planned, self.found = uri, planned, found
        super().__init__(
            f"{uri} changed while it was being scored: it was planned as ({planned}) and is now "
            f"({found}). Run the command again once it stands still; the shards of the other files "
            "are kept."
        )


class InputEmpty(HeadraceError):
    """A dataset without a row."""

    def __init__(self, uri: str, files: int) -> None:
        self.uri, self.files = uri, files
        super().__init__(
            f"{uri} has no rows in its {files} file{'s' if files != 1 else ''}. If that is as it "
            "should be, pass --allow-empty."
        )


class InputNotFound(UsageError):
    """A path, URL or glob with nothing behind it."""

    def __init__(self, uri: str, reason: str) -> None:
        self.uri, self.reason = uri, reason
        super().__init__(
            f"there is no input at {uri}: {reason}. Name a file, a folder, a glob in quotes, or a "
            "Delta or Iceberg table."
        )


class InputRefused(UsageError):
    """A dataset in a form that cannot be read rightly."""

    def __init__(self, uri: str, reason: str, *, remedy: str) -> None:
        self.uri, self.reason, self.remedy = uri, reason, remedy
        super().__init__(f"{uri} is refused: {reason}. {remedy}")


class InputTooLarge(UsageError):
    """A text file beyond what the text formats are for."""

    def __init__(self, uri: str, limit_bytes: int) -> None:
        self.uri, self.limit_bytes = uri, limit_bytes
        super().__init__(
            f"{uri} holds more than {limit_bytes / 1e6:.0f} MB of text. CSV and JSON lines are for "
            "small jobs: they must be read from their start. Write it as Parquet, which is read in "
            "pieces side by side."
        )
