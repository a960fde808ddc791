"""The one pydantic base class of every network's numbers."""

from pydantic import BaseModel, ConfigDict


class StrictConfig(BaseModel):
    """Frozen, and an unknown key is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
