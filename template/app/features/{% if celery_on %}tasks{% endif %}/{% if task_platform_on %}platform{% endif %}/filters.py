"""Which tasks a list, or an operation on many tasks, is about."""

from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from app.api.task_access import TaskViewer
from app.worker.history import Filter

_Text = Annotated[str | None, Field(min_length=1, max_length=255)]


class TaskFilter(BaseModel):
    """What must match. An unknown field is an error, as it would not filter."""

    model_config = ConfigDict(extra="forbid")

    name: _Text = Field(None, description="The name of the task", examples=["report.render"])
    queue: _Text = Field(None, examples=["default"])
    owner: _Text = Field(None, description="For operators: the owner", examples=["user-7"])
    since: AwareDatetime | None = Field(None, description="Queued at this time or later, with a time zone")
    until: AwareDatetime | None = Field(None, description="Queued at this time or earlier, with a time zone")

    def records_of(self, viewer: TaskViewer, state: str | None) -> Filter | None:
        """Return the filter of the records that the client may see, or None if it asks for those of others."""
        if viewer.owner is not None and self.owner not in {None, viewer.owner}:
            # Not a 403: whether others have tasks is not revealed.
            return None
        return Filter(
            state=state,
            name=self.name,
            queue=self.queue,
            owner=viewer.owner or self.owner,
            since=self.since,
            until=self.until,
        )
