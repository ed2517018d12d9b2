"""Route to create a monthly report."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.api.errors import invalid
from app.features.files.quota import JOB_RESPONSES, OwnerWithSpace
from app.features.reports.service import reportable_month
from app.tasks.report_task import generate_monthly_report
from app.worker.publish import enqueue

router = APIRouter(tags=["reports"])


class ReportRequest(BaseModel):
    """The month of the report; it must have started."""

    month: int = Field(ge=1, le=12)
    year: int = Field(ge=1970, le=9999)


@router.post("/reports", status_code=202, responses=JOB_RESPONSES)
async def create_report(request: ReportRequest, owner: OwnerWithSpace) -> dict[str, str]:
    """Queue the month's report. GET /files/{filename} returns the PDF when the task has succeeded."""
    try:
        reportable_month(request.month, request.year)
    except ValueError as error:
        raise invalid(("body", "month"), str(error)) from error
    result = await enqueue(generate_monthly_report.s(request.month, request.year, owner), owner)
    return {"task_id": result.id}
