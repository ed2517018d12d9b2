"""How often something may be tried that could be guessed, or that sends mail.

What is tried for an address counts for the address and the client together, so that nobody uses up the attempts of another;
and for a device from which the owner has logged in, alone.
"""

import ipaddress
from asyncio import sleep as wait
from dataclasses import dataclass

from fastapi import HTTPException, Request
from redis.exceptions import RedisError

from app.features.accounts.complete.known_device import known_device
from app.features.accounts.complete.rate_limit import Limit, RateLimited, Slowdown


@dataclass(frozen=True)
class Budget:
    """How often an address may be tried by one client or known device, and when an address, tried by all, is slowed down."""

    own: Limit
    of_all: Slowdown


CLIENT = Limit("client", 500, 900)
"""For one client, whatever it tries; wide, as many people may share an address."""
LOGIN = Budget(Limit("login", 20, 900), Slowdown("login-of-all", 200, 900))
"""Passwords. A login that succeeds starts the own ones again, a reset of the password those of all clients."""
CODE = Budget(Limit("code", 10, 900), Slowdown("code-of-all", 100, 900))
"""Codes that were mailed; a code is void after some more wrong ones, see app/features/accounts/complete/codes.py."""
MAIL = Budget(Limit("mail", 5, 3600), Slowdown("mail-of-all", 20, 3600))
"""Mails to an address."""
PASSWORD = Limit("password", 10, 900)
"""For one user who is logged in and gives the current password."""


async def limit(to: Limit, who: str, group: str = "") -> None:
    """Count; answers 429 when there were too many, and 503 when nobody can count."""
    try:
        await to.count(who, group)
    except RateLimited as error:
        headers = {"Retry-After": str(error.retry_after)}
        raise HTTPException(429, "Too many attempts; try again later.", headers=headers) from error
    except RedisError as error:
        raise _unavailable() from error


async def limit_client(request: Request) -> None:
    """Count a request of its client: `Depends(limit_client)`."""
    await limit(CLIENT, client_of(request))


async def limit_address(budget: Budget, request: Request, email: str) -> None:
    """Count what is tried for an address; a known device is neither refused nor slowed down for what others try."""
    who = _who(request, email)
    if known_device(request, email) is not None:
        await limit(budget.own, who, email.lower())
        return
    await limit_client(request)
    await limit(budget.own, who, email.lower())
    try:
        delay = await budget.of_all.count(email.lower())
    except RedisError as error:
        raise _unavailable() from error
    await wait(delay)


async def forgive(budget: Budget, request: Request, email: str) -> None:
    """Forget the own failures before a success."""
    try:
        await budget.own.forget(_who(request, email), email.lower())
    except RedisError as error:
        raise _unavailable() from error


async def forgive_all(budget: Budget, email: str) -> None:
    """Forget what all clients have tried for the address."""
    try:
        await budget.own.forget_group(email.lower())
        await budget.of_all.forget(email.lower())
    except RedisError as error:
        raise _unavailable() from error


def client_of(request: Request) -> str:
    """Return the client's address; of an IPv6 address the network of 64 bits, all of which belong to one client.

    Behind a proxy it is the proxy's unless `FORWARDED_ALLOW_IPS` names the proxy.
    """
    host = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return host
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), 64), strict=False))


def _who(request: Request, email: str) -> str:
    device = known_device(request, email)
    return f"client {client_of(request)}" if device is None else f"device {device}"


def _unavailable() -> HTTPException:
    return HTTPException(503, "Redis does not answer; try again later.")
