"""``Part``: a frozen piece of a spec, plan or bundle."""

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A frozen piece of a spec, plan or bundle; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
