"""Forests answered several times faster than by XGBoost's own CPU predictor, with the same bits.

A predictor walks one row down one tree at a time, and waits at each node for memory and for the
branch. This one never branches on a row: 256 rows go through a tree together, as bits.

    model       an XGBoost model as arrays, or NotCovered        (ubjson reads its bytes)
    conditions  the different questions that its nodes ask       (buckets: a value's rank, quickly)
    layout      its trees, padded to full ones, node by node a question
    records     these as C structures
    compiled/   the kernel that answers, in Numba
    build       the kernel as machine code, made by a process of its own, once a machine
    linking     an object file as bytes that run wherever they are mapped
    library     that code, mapped into a process that needs neither Numba nor llvmlite
    forest      a model's answers: matrix or columns in, predictions out
    proof       rows around every threshold, on which forest and XGBoost must agree bit for bit

``Forest.predict`` takes a float32 matrix in C or Fortran order without a copy, and
``Forest.predict_columns`` float32 columns that lie anywhere, such as Arrow's own. So does
``XGBoostRuntime.predict_columns``.

Sources: comparisons column by column instead of a walk are of Lucchese et al., QuickScorer (SIGIR
2015); equal ones made once, for many rows together, of Ye et al., RapidScorer (KDD 2018); a row in
each bit of a register, and a choice as ``(a & ~c) | (b & c)``, of bit-sliced ciphers (Biham, "A
Fast New DES Implementation in Software", 1997). See docs/decisions/0016-forest-kernel.md.
"""
