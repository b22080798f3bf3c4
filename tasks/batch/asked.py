"""From what a caller wrote to the rows and the bundle that are meant."""

from headrace.errors import UsageError
from headrace.settings import Settings
from tasks import windows
from tasks.batch.plan import Files, ScoringWindow
from tasks.windows import Asked


class RowsUnclear(UsageError):
    """Flags that name no rows, or two kinds of them."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"{reason}: give --model (with --month, or --since and --until) for a window of its "
            "scoring table, or --input for any other dataset."
        )


class BundleUnclear(UsageError):
    """Flags that name no bundle, or two."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"{reason}: give --endpoint (or --model, whose endpoint has its name) for a champion, "
            "or --bundle with 64 hexadecimal digits."
        )


def which_rows(
    settings: Settings, *, model: str | None, asked: Asked, files: Files | None
) -> ScoringWindow | Files:
    """The rows that a caller means.

    Raises:
        RowsUnclear: if none are named, or two kinds.
        WindowUnclear, DatesOutsideData: as ``windows.choose``.
    """
    if files is not None:
        if any(asked):
            raise RowsUnclear(f"--input {files.uri} and a window exclude each other")
        return files
    if model is None:
        raise RowsUnclear("no rows are named")
    return ScoringWindow(model=model, window=windows.choose(settings, model, asked))


def which_bundle(
    settings: Settings, *, bundle: str | None, endpoint: str | None, model: str | None
) -> str:
    """The digest of the bundle that a caller means.

    Raises:
        BundleUnclear: if none is named, or two.
        UnknownName: if the endpoint was never released.
    """
    if bundle is not None and endpoint is not None:
        raise BundleUnclear("--bundle and --endpoint exclude each other")
    if bundle is not None:
        return bundle
    name = endpoint or model
    if name is None:
        raise BundleUnclear("no model is named")
    return windows.champion(settings, name)
