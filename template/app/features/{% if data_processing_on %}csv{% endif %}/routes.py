"""Route to process a CSV file."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.features.csv.job import output_names
from app.features.files.quota import JOB_RESPONSES, OwnerWithSpace
from app.features.files.routes import path_of, require_file
from app.tasks.data_processing_task import process_csv_file
from app.worker.publish import enqueue

router = APIRouter(tags=["data processing"])


class CsvRequest(BaseModel):
    """The name of an uploaded CSV file."""

    file: str = Field(
        max_length=127, description="Name of the file. `_processed` is appended for the result, within the same limit."
    )


@router.post(
    "/process-csv", status_code=202, responses={404: {"description": "The file does not exist"}, **JOB_RESPONSES}
)
async def process_csv(request: CsvRequest, owner: OwnerWithSpace) -> dict[str, str]:
    """Queue the processing of a CSV file. When the task has succeeded, GET /files/{filename} returns the rows."""
    await require_file(path_of(owner, request.file, ("body", "file")))
    for name in output_names(request.file):
        path_of(owner, name, ("body", "file"))
    result = await enqueue(process_csv_file.s(request.file, owner), owner)
    return {"task_id": result.id}
