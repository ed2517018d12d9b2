"""Route to create thumbnails."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.features.files.quota import JOB_RESPONSES, OwnerWithSpace
from app.features.files.routes import path_of, require_file
from app.features.images.service import MAX_SIDE
from app.tasks.image_task import MAX_SIZES, SIZES, generate_thumbnails, thumbnail_name
from app.worker.publish import enqueue

router = APIRouter(tags=["images"])

Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]


class ThumbnailsRequest(BaseModel):
    """The name of an uploaded image, and the maximum width and height of each thumbnail."""

    file: str = Field(max_length=127)
    sizes: list[tuple[Side, Side]] = Field(list(SIZES), min_length=1, max_length=MAX_SIZES)


@router.post(
    "/thumbnails", status_code=202, responses={404: {"description": "The file does not exist"}, **JOB_RESPONSES}
)
async def create_thumbnails(request: ThumbnailsRequest, owner: OwnerWithSpace) -> dict[str, str]:
    """Queue the thumbnails of an image. GET /files/{filename} returns each one when the task has succeeded."""
    await require_file(path_of(owner, request.file, ("body", "file")))
    for width, height in request.sizes:
        path_of(owner, thumbnail_name(request.file, width, height), ("body", "file"))
    result = await enqueue(generate_thumbnails.s(request.file, owner, request.sizes), owner)
    return {"task_id": result.id}
