"""One file a flow, each runnable as ``python -m flows.NAME`` and schedulable from prefect.yaml."""

from headrace import telemetry

telemetry.turn_off()  # before any flow imports prefect
