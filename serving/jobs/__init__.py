"""Asynchronous jobs: many rows now, their answers later.

A job is submitted with its rows, waits by rank, is computed part by part through the data plane
that every other edge uses, and keeps its result for a while.

====================  ==============================================================
``job``               what a job is: states, priorities, ranks
``store``             where jobs are kept: the protocol
``sqlite_store``      ... in one SQLite file, for the processes of one machine
``redis_store``       ... in Redis, for processes anywhere
``queue``             every change of a job: submit, claim, keep, end, cancel
``body``              cuts a body into parts, and reads a part
``claim``             a claimed job, whose lease is renewed
``runner``            computes jobs beside the online requests of a process
``results``           what is kept of a part's answer, as JSON lines and as Arrow
``routes``            the calls under ``/api/v1/jobs``
``metrics``           how many wait, how long, and how they end
``service``           all of it, for one process
====================  ==============================================================
"""
