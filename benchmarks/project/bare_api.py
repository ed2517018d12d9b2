"""The smallest FastAPI application: `uvicorn benchmarks.project.bare_api:app`."""

from fastapi import FastAPI

app = FastAPI()


@app.get("/")
async def root() -> dict[str, str]:
    """Answer."""
    return {"status": "ok"}
