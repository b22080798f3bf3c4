"""Measurements side by side with the limit or the peer, run by hand: ``python -m benchmarks``.

Each benchmark is a module with ``main(argv)``; it prints a table and, as its last line, one flat
JSON object of figures. ``--quick`` ends within 50 s.
"""
