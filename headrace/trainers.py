"""How a model comes to be: one small class a way, written into a spec as ``trainer=...``.

``XGBoostTrainer``   gradient-boosted trees
``SklearnTrainer``   any scikit-learn estimator that converts to ONNX
``TorchTrainer``     a PyTorch module, trained here and kept as ONNX or as a torch.export graph
``OnnxModel``        an ONNX file that was made elsewhere
``EnsembleTrainer``  bundles that exist already: averaged, voting or stacked
``GraphTrainer``     bundles that exist already and Python functions that feed each other

A trainer says which runtime will answer (``runtime``) and what to tell people of it (``facts``).
What fits them lies in ``tasks/fitters/``, so a spec costs no heavy import.
"""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from headrace.graph import in_order
from headrace.names import checked_name
from headrace.part import Part

RuntimeName = Literal["xgboost", "onnx", "torch", "ensemble", "graph"]
Value = float | int | str
Factory = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
"""``module:name`` of a function or class, such as ``models.churn:network``."""


class XGBoostTrainer(Part):
    """Gradient-boosted trees; ``parameters`` go to XGBoost as they are."""

    runtime: ClassVar[RuntimeName] = "xgboost"

    kind: Literal["xgboost"] = "xgboost"
    rounds: int = Field(300, ge=1, description="how many trees")
    parameters: dict[str, Value] = Field(default_factory=dict)

    @property
    def facts(self) -> dict[str, Value]:
        """What the bundle and the model card tell of it."""
        return {"rounds": self.rounds, **self.parameters}


class SklearnTrainer(Part):
    """A scikit-learn estimator or pipeline, fitted and then converted to ONNX: no pickle."""

    runtime: ClassVar[RuntimeName] = "onnx"

    kind: Literal["sklearn"] = "sklearn"
    estimator: Factory = Field(
        description="module:name of what returns the unfitted estimator; its predict_proba (binary)"
        " or predict (regression) is the prediction"
    )
    parameters: dict[str, float | int | str | bool | None] = Field(
        default_factory=dict, description="what the estimator is called with"
    )

    @property
    def facts(self) -> dict[str, Value]:
        """What the bundle and the model card tell of it."""
        plain = {
            n: v if isinstance(v, float | int | str) else "None" for n, v in self.parameters.items()
        }
        return {"estimator": self.estimator, **plain}


class TorchTrainer(Part):
    """A PyTorch module of the standardised inputs, trained with Adam.

    Inputs are standardised by the mean and deviation of the training rows, and a missing value is
    the mean. A binary model gives logits and learns from cross-entropy, a regression values and
    the squared error.
    """

    kind: Literal["torch"] = "torch"
    module: Factory = Field(
        description="module:name of what returns the torch.nn.Module; called with the number of "
        "inputs and parameters, gives float32 of shape (rows,) or (rows, 1)"
    )
    parameters: dict[str, Value] = Field(default_factory=dict)
    epochs: int = Field(10, ge=1, description="passes over the training rows")
    batch_rows: int = Field(1024, ge=1, description="rows of one step")
    learning_rate: float = Field(1e-3, gt=0, description="Adam's step size")
    weight_decay: float = Field(0.0, ge=0, description="pull of the weights towards zero")
    seed: int = Field(0, ge=0, description="of the first weights and the order of rows")
    device: Literal["cpu", "cuda", "auto"] = Field(
        "cpu", description="where to train; auto: a GPU if there is one"
    )
    keep: Literal["onnx", "torch"] = Field(
        "onnx",
        description="the form it is kept in. onnx: answers without PyTorch; torch: the graph of "
        "torch.export, for what ONNX cannot say and for weights of more than 2 GB",
    )

    @property
    def runtime(self) -> RuntimeName:
        """Which runtime answers."""
        return self.keep

    @property
    def facts(self) -> dict[str, Value]:
        """What the bundle and the model card tell of it."""
        own = self.model_dump(exclude={"kind", "parameters", "device"})
        return {**own, **self.parameters}


FittedTrainer = Annotated[
    XGBoostTrainer | SklearnTrainer | TorchTrainer, Field(discriminator="kind")
]
"""The trainers that fit a model to rows."""


class OnnxModel(Part):
    """An ONNX file made elsewhere: float32 (rows, columns) in, a number a row out."""

    runtime: ClassVar[RuntimeName] = "onnx"

    kind: Literal["onnx"] = "onnx"
    file: str = Field(
        min_length=1, description="path or URL; a path counts from the current folder"
    )
    output: str | None = Field(
        None, description="which of its outputs is the prediction, if it has several"
    )
    column: int | None = Field(
        None, ge=0, description="which column of that output, if it has several"
    )

    @property
    def facts(self) -> dict[str, Value]:
        """What the bundle and the model card tell of it."""
        told = self.model_dump(exclude={"kind"}, exclude_none=True)
        return {name: value for name, value in told.items() if isinstance(value, int | str)}


class Member(Part):
    """A bundle that an ensemble is made of: the champion of a model's endpoint, or a digest."""

    model: str | None = Field(None, description="endpoint whose champion it is")
    digest: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="of a bundle")
    weight: float = Field(1.0, gt=0, description="share in a weighted mean; any scale")

    @model_validator(mode="after")
    def _one_name(self) -> Self:
        if (self.model is None) == (self.digest is None):
            raise ValueError("write either model or digest")
        if self.model is not None:
            checked_name("model", self.model)
        return self

    @property
    def name(self) -> str:
        """How it is called in a sentence."""
        return self.model or f"{self.digest}"[:12]


class EnsembleTrainer(Part):
    """Bundles that exist already, put together; their inputs must be among this model's."""

    kind: Literal["ensemble"] = "ensemble"
    members: tuple[Member, ...] = Field(min_length=2)
    combine: Literal["mean", "vote", "stack"] = Field(
        "mean",
        description="mean: weighted by the members' weights; vote: the weighted share of members "
        "that say yes, binary models only; stack: by a model that is fitted on rows later than all "
        "that the members learned from",
    )
    by: FittedTrainer | None = Field(
        None,
        description="of a stack: the trainer of the model that takes the members' predictions; "
        "None: a linear model (of log odds where binary)",
    )
    columns: tuple[str, ...] = Field(
        (), description="of a stack with a trainer: columns that its model takes beside them"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        named = [member.name for member in self.members]
        if twice := sorted({name for name in named if named.count(name) > 1}):
            raise ValueError(f"members name {', '.join(twice)} twice; give it a larger weight")
        if self.by is not None and self.combine != "stack":
            raise ValueError(f"by is for combine 'stack', not {self.combine!r}")
        if self.columns and self.by is None:
            raise ValueError("columns are taken by the model of a stack; say which in by")
        return self

    @property
    def runtime(self) -> RuntimeName:
        """Which runtime answers: a stacked model that was trained is a node of a graph."""
        return "ensemble" if self.by is None else "graph"

    @property
    def facts(self) -> dict[str, Value]:
        """What the bundle and the model card tell of it."""
        told: dict[str, Value] = {"combine": self.combine}
        if self.by is not None:
            told["by"] = self.by.kind
            return told | {f"by {name}": value for name, value in self.by.facts.items()}
        return told | {f"weight of {member.name}": member.weight for member in self.members}


class BundleNode(Part):
    """A node of a graph that is a bundle."""

    name: str
    member: Member
    inputs: dict[str, str] = Field(
        default_factory=dict,
        description="column or node for those of the bundle's columns that go by another name here",
    )

    @property
    def takes(self) -> tuple[str, ...]:
        """The names that it is known to take before its bundle is looked at."""
        return tuple(self.inputs.values())


class FunctionNode(Part):
    """A node of a graph that is a Python function, one of ``featurestore/transforms/``."""

    name: str
    function: str = Field(description="module.function of a transform")
    inputs: tuple[str, ...] = Field(min_length=1, description="columns and nodes, in its order")

    @property
    def takes(self) -> tuple[str, ...]:
        """The names that it takes."""
        return self.inputs


class GraphTrainer(Part):
    """Bundles and functions that feed each other; nothing is fitted."""

    runtime: ClassVar[RuntimeName] = "graph"

    kind: Literal["graph"] = "graph"
    nodes: tuple[BundleNode | FunctionNode, ...] = Field(min_length=1)
    output: str = Field(description="the node whose values are the prediction")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        named = [node.name for node in self.nodes]
        if twice := sorted({name for name in named if named.count(name) > 1}):
            raise ValueError(f"nodes name {', '.join(twice)} twice; give each its own name")
        in_order({n.name: n.takes for n in self.nodes}, output=self.output, columns=None)
        return self

    @property
    def facts(self) -> dict[str, Value]:
        """What the bundle and the model card tell of it."""
        told = {
            node.name: node.function if isinstance(node, FunctionNode) else node.member.name
            for node in self.nodes
        }
        return {"output": self.output, **told}


Trainer = Annotated[
    XGBoostTrainer | SklearnTrainer | TorchTrainer | OnnxModel | EnsembleTrainer | GraphTrainer,
    Field(discriminator="kind"),
]
