"""The vocabulary that several rooms share, small and typed.

names     what may become part of a path
errors    the root of every error, and the exit codes
settings  where things are (``HEADRACE_*``)
storage   bytes in and out of a folder or any fsspec URL, whole or not at all
backends  what each kind of place takes for that: a folder, S3, anything else
healing   trying again what may heal
spec      ``ModelSpec``: everything that is true of a model before it is trained
transform request-time features as pure column functions
plan      ``FeaturePlan``: what one model version reads, and in which order
bundle    a trained model as an immutable, content-addressed folder
window    a window of time in UTC
scorecard what an evaluation found, overall, by slice, and against the champion
telemetry what dependencies would send home, turned off
sealed    small documents that show whether they are whole
release   which bundles an endpoint runs, changed by compare-and-swap
"""
