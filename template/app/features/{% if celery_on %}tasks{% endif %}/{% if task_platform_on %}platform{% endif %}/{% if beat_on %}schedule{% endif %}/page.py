"""The page of the schedule, with its forms."""

from fastapi import APIRouter, Request, Response

from app.features.tasks.platform.schedule import routes
from app.features.tasks.platform.schedule.routes import EntryName
from app.features.tasks.platform.ui.pages import (
    HOME,
    Link,
    PageOperator,
    PageRoute,
    navigation,
    render,
    see_other,
)

_PATH = f"{HOME}/schedule"
router = APIRouter(prefix=_PATH, route_class=PageRoute, include_in_schema=False)

navigation.append(Link(_PATH, "Schedule"))


@router.get("")
async def schedule(request: Request, viewer: PageOperator) -> Response:
    """Show each entry with its last and its next run."""
    return render(request, "schedule/page.html", schedule=await routes.get_schedule(viewer))


# Not after the name, which may contain a slash.
@router.post("/run/{entry:path}")
async def run(entry: EntryName, viewer: PageOperator) -> Response:
    """Have beat queue the task of an entry now."""
    await routes.run_entry(entry, viewer)
    return see_other(_PATH, done="run")


@router.post("/pause/{entry:path}")
async def pause(entry: EntryName, viewer: PageOperator) -> Response:
    """Have beat skip an entry."""
    await routes.pause_entry(entry, viewer)
    return see_other(_PATH, done="paused")


@router.post("/resume/{entry:path}")
async def resume(entry: EntryName, viewer: PageOperator) -> Response:
    """Have beat run an entry again when it is due."""
    await routes.resume_entry(entry, viewer)
    return see_other(_PATH, done="resumed")
