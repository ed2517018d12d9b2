# app/tasks/data_processing_task.py
from app.core.celery import celery_app
from app.services.pasted import process_row
import pandas as pd

@celery_app.task(name="process_csv_file")
def process_csv_file(file_path: str):
    """Process large CSV file"""
    df = pd.read_csv(file_path)
    
    # Process data
    results = []
    for index, row in df.iterrows():
        result = process_row(row)
        results.append(result)
    
    return {
        "total_rows": len(df),
        "processed": len(results),
        "results": results
    }
