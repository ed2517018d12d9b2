# app/tasks/report_task.py
from app.core.celery import celery_app, with_db_init
from app.services.pasted import create_report, save_report
from datetime import datetime, timedelta

@celery_app.task(name="generate_monthly_report")
@with_db_init
def generate_monthly_report(month: int, year: int):
    """Generate monthly report"""
    # Fetch data from database
    start_date = datetime(year, month, 1)
    end_date = start_date + timedelta(days=32)
    
    # Generate report
    report = create_report(start_date, end_date)
    
    # Save to file
    filename = f"report_{year}_{month}.pdf"
    save_report(report, filename)
    
    return {"filename": filename, "status": "completed"}
