"""The steps that flows are made of: import them into your own ``@flow``.

sample         the sample project's tables, written once
features       Feast definitions applied, views materialised
feature_checks how fresh views are, what is missing, what has moved
alerts         what was found told: records, Prefect events, a webhook
training       training set, fit, score, gates, bundle, registration
scoring        a window of rows scored on Dask, committed with one manifest
drift          a window compared with the champion's reference profile
rollout        bundles verified, challengers compared, releases moved
serving_check  a real server started, asked and stopped

Each is a thin ``@step`` over plain functions that work without Prefect. ``clusters`` is the one
door to Dask, ``prefect_server`` keeps the local Prefect server.
"""

from headrace import telemetry

telemetry.turn_off()  # before any task imports prefect
