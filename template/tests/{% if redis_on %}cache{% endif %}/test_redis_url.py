"""URLs of Redis databases that a library would misread are refused by name, without a part of their password."""

import pytest
import redis

from app.core.config.redis_url import TLS_OPTIONS, check_redis_url, for_redis_py


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost:6379/1",
        "redis://:se%23cret@localhost/1",
        "rediss://user:secret@[::1]:6380/1?ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs=/x",
        "redis://localhost",
    ],
)
def test_urls_of_databases_are_taken(url: str) -> None:
    check_redis_url(url, {"redis", "rediss"}, TLS_OPTIONS)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://:secret@localhost/1?socket_timeout=5", "must not have the option socket_timeout"),
        ("redis://:secret@localhost/1?ssl_cert_req=none", "must not have the option ssl_cert_req"),
        ("redis://:secret@localhost/1?", None),
        ("redis://:secret@localhost/queue", "the number of the database"),
        ("redis://:secret@localhost/1/2", "the number of the database"),
        ("redis://:secret@localhost:70000/1", "must have a port from 1 to 65535"),
        ("redis://:sec:ret/@localhost:6379/1", "must have a port from 1 to 65535"),
        ("redis://:sec#ret@localhost:6379/1", "must have a host|must not have a #|must have a port"),
        ("redis:///1", "must have a host"),
        ("redis://user:6379?sec=ret@localhost:6379/1", "has an @ after the host"),
        ("redis://localhost/1?ssl_ca_certs=/x", "must start with rediss:// to use the option"),
        ("redis+socket:///run/secret.sock", "must start with"),
        ("localhost:6379", "must start with"),
    ],
)
def test_what_would_be_misread_is_refused(url: str, words: str | None) -> None:
    if words is None:
        check_redis_url(url, {"redis", "rediss"}, TLS_OPTIONS)
        return
    with pytest.raises(ValueError, match=words) as caught:
        check_redis_url(url, {"redis", "rediss"}, TLS_OPTIONS)
    assert "sec" not in str(caught.value).replace("ssl_", "")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("rediss://h/1?ssl_cert_reqs=CERT_REQUIRED", "rediss://h/1?ssl_cert_reqs=required"),
        ("rediss://h/1?ssl_cert_reqs=CERT_NONE&ssl_ca_certs=/x", "rediss://h/1?ssl_cert_reqs=none&ssl_ca_certs=/x"),
        ("rediss://:CERT_NONE@h/1?ssl_cert_reqs=required", "rediss://:CERT_NONE@h/1?ssl_cert_reqs=required"),
    ],
)
def test_redis_py_gets_its_own_words_for_certificates(given: str, expected: str) -> None:
    assert for_redis_py(given) == expected
    redis.Redis.from_url(expected).connection_pool.make_connection()


@pytest.mark.parametrize(
    "option",
    [
        "client_name=app",
        "health_check_interval=15",
        "max_connections=20",
        "protocol=3",
        "retry_on_timeout=true",
        "socket_connect_timeout=2.5",
        "socket_keepalive=yes",
        "socket_timeout=5",
    ],
)
def test_options_that_are_taken_are_understood(option: str) -> None:
    url = f"redis://localhost/1?{option}"
    check_redis_url(url, {"redis"})
    redis.Redis.from_url(url).connection_pool.make_connection()


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("socket_timeot=5", "must not have the option socket_timeot"),
        ("socket_timeout=soon", "an invalid value for the option socket_timeout"),
        ("health_check_interval=1.5", "the option health_check_interval"),
        ("max_connections=0", "the option max_connections"),
        ("decode_responses=true", "must not have the option decode_responses"),
        ("db=3", "must not have the option db"),
        ("virtual_host=3", "must not have the option virtual_host"),
    ],
)
def test_options_that_no_client_takes_are_refused(query: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_redis_url(f"redis://localhost/1?{query}", {"redis"})


def test_a_socket_names_its_database_in_an_option() -> None:
    check_redis_url("unix:///run/redis.sock?db=3", {"unix"})
    with pytest.raises(ValueError, match="an invalid value for the option db"):
        check_redis_url("unix:///run/redis.sock?db=abc", {"unix"})
