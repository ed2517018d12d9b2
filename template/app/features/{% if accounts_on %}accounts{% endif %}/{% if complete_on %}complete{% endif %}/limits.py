"""Rate limits for attempts to guess passwords and codes, and for requests that send mail.

Attempts are counted per address and client, so that nobody can use up another client's attempts. A device that has
logged in before has its own count.
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
    """The limit per address for one client or known device, and the slowdown per address for all clients together."""

    per_client: Limit
    all_clients: Slowdown


CLIENT = Limit("client", 500, 900)
"""All attempts of one client; generous, because many users may share an IP address."""
LOGIN = Budget(Limit("login", 20, 900), Slowdown("login-of-all", 200, 900))
"""Passwords. A successful login resets the client's count, a password reset the counts of all clients."""
CODE = Budget(Limit("code", 10, 900), Slowdown("code-of-all", 100, 900))
"""Mailed codes. codes.py limits the wrong attempts at one code in addition."""
MAIL = Budget(Limit("mail", 5, 3600), Slowdown("mail-of-all", 20, 3600))
"""Mails to one address."""
PASSWORD = Limit("password", 10, 900)
"""The current password that a logged-in user has to enter."""


async def limit(to: Limit, who: str, group: str = "") -> None:
    """Count an attempt; return 429 if the limit is exceeded and 503 if Redis is unreachable."""
    try:
        await to.count(who, group)
    except RateLimited as error:
        headers = {"Retry-After": str(error.retry_after)}
        raise HTTPException(429, "Too many attempts; try again later.", headers=headers) from error
    except RedisError as error:
        raise _unavailable() from error


async def limit_client(request: Request) -> None:
    """Count a request for its client: `Depends(limit_client)`."""
    await limit(CLIENT, client_of(request))


async def limit_address(budget: Budget, request: Request, email: str) -> None:
    """Count an attempt for an address. A known device is not affected by the attempts of others."""
    who = _who(request, email)
    if known_device(request, email) is not None:
        await limit(budget.per_client, who, email.lower())
        return
    await limit_client(request)
    await limit(budget.per_client, who, email.lower())
    try:
        delay = await budget.all_clients.count(email.lower())
    except RedisError as error:
        raise _unavailable() from error
    await wait(delay)


async def reset_attempts(budget: Budget, request: Request, email: str) -> None:
    """Reset the client's count for the address, after a success."""
    try:
        await budget.per_client.forget(_who(request, email), email.lower())
    except RedisError as error:
        raise _unavailable() from error


async def reset_all_attempts(budget: Budget, email: str) -> None:
    """Reset the counts of all clients for the address."""
    try:
        await budget.per_client.forget_group(email.lower())
        await budget.all_clients.forget(email.lower())
    except RedisError as error:
        raise _unavailable() from error


def client_of(request: Request) -> str:
    """Return the client's IPv4 address or its IPv6 /64 network, which usually belongs to one client.

    Behind a proxy that `FORWARDED_ALLOW_IPS` does not trust, it is the proxy's address.
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
    return HTTPException(503, "Redis is unavailable; try again later.")
