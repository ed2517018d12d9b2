"""The tasks that the page's chain, group and chord name."""

from app.core.celery import celery_app

@celery_app.task
def process_data_task(data):
    return [value * 2 for value in data]

@celery_app.task
def validate_results_task(results):
    return {"valid": all(value % 2 == 0 for value in results), "results": results}

@celery_app.task
def send_notification_task(validated):
    return f"notified about {len(validated['results'])}"

@celery_app.task
def process_file_task(file):
    return len(file)

@celery_app.task
def send_summary_task(sizes):
    return sum(sizes)
