from app.core.celery import celery_app
from app.services.pasted import PaymentGatewayError, payment_gateway

@celery_app.task(bind=True, max_retries=3, default_retry_delay=60)
def process_payment(self, order_id: int, amount: float):
    """Process payment with retry on failure"""
    try:
        return payment_gateway.charge(order_id, amount)
    except PaymentGatewayError as e:
        # Retry after 60 seconds
        raise self.retry(exc=e, countdown=60)
