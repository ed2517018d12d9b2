from celery.result import AsyncResult
from fastapi import APIRouter

from app.core.celery import celery_app
from app.tasks.process_task import process_task
from app.tasks.send_email_task import send_email_task

router = APIRouter(prefix="/pasted")

@router.post("/register")
async def register(email: str):
    # Create user...
    
    # Queue email task
    task = send_email_task.delay(email, "Welcome!", "Welcome to our app")
    
    return {"message": "Registration successful", "task_id": task.id}

@router.get("/task/{task_id}")
async def task_status(task_id: str):
    task = AsyncResult(task_id, app=celery_app)
    return {
        "status": task.status,  # PENDING, STARTED, SUCCESS, FAILURE
        "result": task.result if task.ready() else None
    }

@router.post("/process")
async def process_data(data: dict):
    task = process_task.delay(data)
    
    try:
        result = task.get(timeout=30)  # Wait up to 30 seconds
        return {"status": "completed", "result": result}
    except TimeoutError:
        return {"status": "processing", "task_id": task.id}
