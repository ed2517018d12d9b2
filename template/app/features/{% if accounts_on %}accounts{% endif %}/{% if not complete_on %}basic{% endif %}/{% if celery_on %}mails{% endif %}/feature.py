"""Declare the feature: a registration queues the welcome mail."""

from app.core.features import Feature
from app.features.accounts.basic.mails.welcome import WelcomeByMail
from app.features.accounts.basic.welcome import welcomes

welcomes.append(WelcomeByMail())
feature = Feature()
