"""What the page takes for granted: a payment gateway, a push service and the like, each as small as it can be."""

import json
import os
from pathlib import Path


def folder() -> Path:
    return Path(os.environ["PASTED_FOLDER"])


class PaymentGatewayError(Exception):
    pass


class PaymentGateway:
    """Fails at the first attempt for each order."""

    def charge(self, order_id, amount):
        attempts = folder() / f"order-{order_id}"
        with attempts.open("a") as file:
            file.write("attempt\n")
        if len(attempts.read_text().splitlines()) == 1:
            raise PaymentGatewayError("try again")
        return {"order_id": order_id, "amount": amount}


payment_gateway = PaymentGateway()


class PushService:
    def send(self, user_id, title, message):
        return {"user_id": user_id, "title": title, "message": message}


push_service = PushService()


class TemporaryError(Exception):
    pass


class PermanentError(Exception):
    pass


def process_data(data):
    if data == "permanent":
        raise PermanentError("will never work")
    attempts = folder() / f"data-{data}"
    if not attempts.exists():
        attempts.touch()
        raise TemporaryError("try again")


def process_row(row):
    return {"name": row["name"], "double": int(row["value"]) * 2}


def create_report(start_date, end_date):
    return {"start": start_date.isoformat(), "end": end_date.isoformat()}


def save_report(report, filename):
    (folder() / filename).write_text(json.dumps(report))


class StatusUser:
    def __init__(self, user_id):
        self.path = folder() / f"status-{user_id}"
        self.status = self.path.read_text() if self.path.exists() else None


def get_user(user_id):
    return StatusUser(user_id)


def save_user(user):
    user.path.write_text(user.status)
