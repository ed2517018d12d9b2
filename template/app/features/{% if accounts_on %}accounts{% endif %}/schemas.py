"""Requests and responses of accounts."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, EmailStr, Field, SecretStr, model_validator

from app.core.mail_address import MAX_LENGTH, sendable


def _fits_a_column(email: str) -> str:
    if len(email) > MAX_LENGTH:
        raise ValueError(f"must have at most {MAX_LENGTH} characters")
    return email


def _is_text(password: SecretStr) -> SecretStr:
    try:
        password.get_secret_value().encode()
    except UnicodeEncodeError as error:
        raise ValueError("must be valid Unicode text") from error
    return password


Address = Annotated[EmailStr, AfterValidator(_fits_a_column)]
MailAddress = Annotated[Address, AfterValidator(sendable)]
"""An address that mail servers accept. Accounts from earlier releases may have others and can still log in."""
Password = Annotated[SecretStr, Field(min_length=1, max_length=128), AfterValidator(_is_text)]
NewPassword = Annotated[SecretStr, Field(min_length=8, max_length=128), AfterValidator(_is_text)]


def is_address(password: SecretStr, email: str) -> bool:
    """Return whether the password is the address itself, which is easy to guess."""
    return password.get_secret_value().strip().lower() == email.lower()


class RegisterRequest(BaseModel):
    """A new account."""

    email: MailAddress
    password: NewPassword

    @model_validator(mode="after")
    def _password_is_not_the_address(self) -> Self:
        if is_address(self.password, self.email):
            raise ValueError("the password must not be the e-mail address")
        return self


class LoginRequest(BaseModel):
    """An e-mail address and its password."""

    email: Address
    password: Password


class LoginResponse(BaseModel):
    """An access token for the header `Authorization: Bearer …`; it expires after `expires_in` seconds."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105
    expires_in: int
