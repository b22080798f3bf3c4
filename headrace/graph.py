"""Graphs of named nodes: which of them feeds which, in an order in which each comes after its own.

A node takes columns of the model's plan and what other nodes give. What does not fit together is
told when the graph is built, in a sentence that names the nodes.
"""

from collections.abc import Collection, Mapping
from graphlib import CycleError, TopologicalSorter


def in_order(
    nodes: Mapping[str, Collection[str]], *, output: str, columns: Collection[str] | None
) -> tuple[str, ...]:
    """Return the names of ``nodes``, each after those that feed it.

    Args:
        nodes: what each node takes.
        output: the node whose values are the graph's.
        columns: what else there is to take; None: not known yet, so what needs that is not
            looked at: unknown names, and nodes that feed nothing.

    Raises:
        ValueError: for an unknown name, a name that is a node and a column, a cycle, or a node
            that feeds nothing.

    >>> in_order({"sum": ["a", "twice"], "twice": ["a"]}, output="sum", columns=["a"])
    ('twice', 'sum')
    """
    if output not in nodes:
        raise ValueError(f"output {output!r} is no node; there are {', '.join(nodes)}")
    known = columns if columns is not None else ()
    if both := sorted(set(nodes) & set(known)):
        raise ValueError(f"node {both[0]!r} has the name of a column; give it another")
    for name, taken in nodes.items():
        unknown = sorted(set(taken) - set(nodes) - set(known))
        if unknown and columns is not None:
            have = ", ".join([*nodes, *known])
            raise ValueError(f"node {name!r} takes {unknown[0]!r}, which is none of {have}")
    feeding = {name: [n for n in taken if n in nodes] for name, taken in nodes.items()}
    try:
        order = tuple(TopologicalSorter(feeding).static_order())
    except CycleError as error:
        raise ValueError(
            f"nodes feed each other in a circle: {' -> '.join(error.args[1])}"
        ) from error
    if columns is None:
        return order
    fed = {name for taken in feeding.values() for name in taken}
    if idle := sorted(set(nodes) - fed - {output}):
        raise ValueError(f"node {idle[0]!r} feeds nothing; take it out, or make it the output")
    return order
