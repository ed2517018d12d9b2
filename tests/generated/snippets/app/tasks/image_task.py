# app/tasks/image_task.py
from app.core.celery import celery_app
from PIL import Image

@celery_app.task(name="resize_image")
def resize_image(image_path: str, width: int, height: int):
    """Resize image"""
    img = Image.open(image_path)
    img_resized = img.resize((width, height))
    
    output_path = f"{image_path}_resized.jpg"
    img_resized.save(output_path)
    
    return {"output_path": output_path}

@celery_app.task(name="generate_thumbnails")
def generate_thumbnails(image_path: str):
    """Generate multiple thumbnail sizes"""
    sizes = [(100, 100), (200, 200), (400, 400)]
    thumbnails = []
    
    for width, height in sizes:
        result = resize_image(image_path, width, height)
        thumbnails.append(result)
    
    return thumbnails
