"""CSV files over HTTP."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.features.csv.job import output_names
from app.features.files.quota import JOB_ANSWERS, OwnerWithSpace
from app.features.files.routes import path_of, require_file
from app.tasks.data_processing_task import process_csv_file
from app.worker.publish import enqueue

router = APIRouter(tags=["data processing"])


class CsvRequest(BaseModel):
    """An uploaded file."""

    file: str = Field(
        max_length=127, description="A few characters short of that: the results' names are made from it."
    )


@router.post("/process-csv", status_code=202, responses={404: {"description": "No such file"}, **JOB_ANSWERS})
async def process_csv(request: CsvRequest, owner: OwnerWithSpace) -> dict[str, str]:
    """Queue the processing of a CSV file; GET /files/{filename} of its result returns the rows."""
    await require_file(path_of(owner, request.file, ("body", "file")))
    for name in output_names(request.file):
        path_of(owner, name, ("body", "file"))
    result = await enqueue(process_csv_file.s(request.file, owner), owner)
    return {"task_id": result.id}
