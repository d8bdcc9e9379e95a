"""The base of every model that one stage hands to the next: immutable, closed to unknown keys, strict about types."""

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A value: compares by content, cannot be changed, refuses keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)
