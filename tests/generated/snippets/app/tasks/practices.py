import logging

from app.core.celery import celery_app
from app.services.pasted import PermanentError, TemporaryError, get_user, process_data, save_user

logger = logging.getLogger(__name__)

@celery_app.task
def update_user_status(user_id: int, status: str):
    """Idempotent task"""
    # Check current status first
    user = get_user(user_id)
    if user.status != status:
        user.status = status
        save_user(user)

@celery_app.task(time_limit=300, soft_time_limit=270)
def long_running_task():
    """Task with 5-minute timeout"""
    # Task will be killed after 300 seconds
    # SoftTimeLimitExceeded raised after 270 seconds
    pass

@celery_app.task(bind=True, max_retries=3)
def reliable_task(self, data):
    try:
        process_data(data)
    except TemporaryError as e:
        # Retry on temporary errors
        raise self.retry(exc=e, countdown=60)
    except PermanentError as e:
        # Log and don't retry
        logger.error(f"Permanent error: {e}")
        return {"status": "failed", "error": str(e)}

from celery.signals import task_prerun, task_postrun
import time

task_start_times = {}

@task_prerun.connect
def task_prerun_handler(task_id, task, *args, **kwargs):
    task_start_times[task_id] = time.time()

@task_postrun.connect
def task_postrun_handler(task_id, task, *args, **kwargs):
    if task_id in task_start_times:
        duration = time.time() - task_start_times[task_id]
        logger.info(f"Task {task.name} took {duration:.2f}s")
        del task_start_times[task_id]

# High priority task
@celery_app.task(priority=9)
def urgent_task():
    pass

# Low priority task
@celery_app.task(priority=1)
def background_task():
    pass

# Configure worker to restart after processing tasks
celery_app.conf.worker_max_tasks_per_child = 100
celery_app.conf.worker_max_memory_per_child = 200000  # 200MB
