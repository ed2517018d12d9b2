"""docs/redis-caching.md; the project's tests/cache/test_redis.py tests the recipes more closely."""

from tests.pages.hooks import Names, after


@after("async def read_profile")
async def what_is_stored_is_read(names: Names) -> None:
    await names["store_profile"](1, "Ada")
    assert await names["read_profile"](1) == {"name": "Ada"}


@after("async def allowed")
async def calls_above_the_limit_are_refused(names: Names) -> None:
    assert [await names["allowed"]("ada", 2, 60) for _ in range(3)] == [True, True, False]


@after("async def user_changed")
async def values_of_the_user_are_deleted(names: Names) -> None:
    await names["user_changed"](1)
    assert await names["read_profile"](1) is None


@after("async def once(")
async def it_is_computed_once(names: Names) -> None:
    calls: list[int] = []

    async def compute() -> int:
        calls.append(1)
        return 7

    assert [await names["once"]("answer", compute, 60) for _ in range(2)] == [7, 7]
    assert len(calls) == 1
