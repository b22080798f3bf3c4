"""What an endpoint was asked and answered in a window, from its inference log."""

import pyarrow as pa

from headrace.errors import UsageError
from headrace.settings import Settings
from headrace.window import Window


class NothingLogged(UsageError):
    """A window in which an endpoint answered nobody."""

    def __init__(self, endpoint: str, window: Window, otherwise: str = "") -> None:
        self.endpoint, self.window, self.otherwise = endpoint, window, otherwise
        super().__init__(
            f"the inference log of {endpoint!r} has no request in {window} (by arrival, UTC): "
            f"choose a window in which the server was asked{otherwise}."
        )


def logged_rows(
    settings: Settings, endpoint: str, window: Window, *, otherwise: str = ""
) -> pa.Table:
    """The rows that an endpoint answered in a window, at least one.

    Args:
        settings: where the log lies.
        endpoint: whose log.
        window: by arrival.
        otherwise: what else the caller's user could do, as the end of the error's sentence.

    Raises:
        NothingLogged: if there are none.
    """
    from monitoring.inference_log import read_log

    log = read_log(settings.storage_uri, endpoint, since=window.since, until=window.until)
    if not log.num_rows:
        raise NothingLogged(endpoint, window, otherwise)
    return log
