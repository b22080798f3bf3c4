"""Turn off what our dependencies would send home, before any of them is imported.

A variable that the user has set already is left as it is.
"""

import os

OFF = {
    "DO_NOT_TRACK": "1",  # Prefect's client, Evidently
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "FEAST_USAGE": "False",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",  # no code from stored models
}


def turn_off() -> None:
    """Set every switch of ``OFF`` that is not set."""
    for variable, value in OFF.items():
        os.environ.setdefault(variable, value)
