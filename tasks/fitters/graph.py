"""Graphs of bundles and functions: nothing is fitted, everything is checked."""

import numpy as np

from headrace.errors import SpecRefused, UnknownName
from headrace.settings import Settings
from headrace.spec import BundleNode, FunctionNode, GraphTrainer, ModelSpec
from headrace.transform import check_row_by_row, find_transform
from serving.errors import RuntimeFailed
from serving.predictor import load_predictor
from serving.runtimes.graph import BundleStep, FunctionStep, GraphDocument, GraphRuntime
from tasks.fitters.members import check_member, load_member
from tasks.training_sets import TrainingSet

SAMPLE_ROWS = 4096
"""How many training rows the functions are tried on."""


def fit(
    settings: Settings,
    spec: ModelSpec,
    trainer: GraphTrainer,
    *,
    training_set: TrainingSet,
    matrix: np.ndarray,
) -> bytes:
    """Return ``graph.json``: its bundles by digest, its functions by the hash of their source.

    Args:
        settings: where bundles and releases lie.
        spec: the model.
        trainer: its nodes.
        training_set: its plan and windows.
        matrix: inputs of the training rows, float32, shape (rows, columns).

    Raises:
        SpecRefused: if a bundle or function does not fit, or the nodes do not fit together.
        BundleRefused: if a bundle is.
        TransformRefused: if a function looks at other rows, or changes its inputs.
    """
    names = {node.name for node in trainer.nodes}
    steps = [
        _bundle(settings, spec, node, training_set=training_set, names=names)
        if isinstance(node, BundleNode)
        else _function(spec, node)
        for node in trainer.nodes
    ]
    document = GraphDocument(nodes=tuple(steps), output=trainer.output)
    data = document.model_dump_json(indent=1).encode()
    root = settings.uri("bundles")
    try:
        graph = GraphRuntime(
            data,
            columns=training_set.plan.columns,
            member=lambda digest: load_predictor(root, digest),
        )
        values = graph.values(matrix[:SAMPLE_ROWS])
        graph.close()
    except RuntimeFailed as error:
        raise SpecRefused(spec.name, f"trainer: {error}") from error
    for node in trainer.nodes:
        if isinstance(node, FunctionNode):
            inputs = [np.asarray(values[name], np.float64) for name in node.inputs]
            check_row_by_row(find_transform(node.function), inputs)
    return data


def _bundle(
    settings: Settings,
    spec: ModelSpec,
    node: BundleNode,
    *,
    training_set: TrainingSet,
    names: set[str],
) -> BundleStep:
    member = load_member(settings, spec, node.member)
    given = frozenset(
        c for c in member.columns if node.inputs.get(c, c) in names or c in node.inputs
    )
    check_member(spec, training_set, member, given=given)
    member.close()
    return BundleStep(name=node.name, digest=member.digest, inputs=node.inputs)


def _function(spec: ModelSpec, node: FunctionNode) -> FunctionStep:
    try:
        found = find_transform(node.function)
    except UnknownName as error:
        raise SpecRefused(spec.name, f"trainer: node {node.name!r}: {error}") from error
    if len(found.inputs) != len(node.inputs):
        said = f"takes {', '.join(found.inputs)}, and is given {', '.join(node.inputs)}"
        raise SpecRefused(spec.name, f"trainer: node {node.name!r}: {node.function} {said}")
    return FunctionStep(
        name=node.name,
        function=node.function,
        source_sha256=found.source_sha256,
        inputs=node.inputs,
    )
