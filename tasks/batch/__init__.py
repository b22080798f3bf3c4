"""Batch prediction: a table of any size, scored in shards, committed once.

::

    inputs/      what is read: files, tables, windows      plan.py     shards and their ids
    output.py    parts, and the record of a shard          shards.py   what a worker does with one
    commit.py    manifests: what readers see               lease.py    who may commit
    running.py   which runs there are, and which died      deliver/    copies in other stores
"""
