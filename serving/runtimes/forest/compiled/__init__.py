"""The kernel, as Numba and LLVM read it. Imported by ``build`` alone: it costs what Numba costs.

kernel       a job: blocks of 256 rows, each through the three steps
conditions   the questions of the forest, answered as bits
trees        the leaf that each row comes to, tree by tree
transforms   the objective's last step
multiplexer  the hot parts of ``trees``, as straight lines of vector instructions
registers    32 bytes at once, and arrays at addresses
"""
