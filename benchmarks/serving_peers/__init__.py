"""The peers of ``benchmarks.serving``: each a server as its own documentation would write it.

Each runs in an environment of its own below ``build/serving_peers``, made by
``python -m benchmarks.serving_peers`` (``make bench-serving-peers``).
"""
