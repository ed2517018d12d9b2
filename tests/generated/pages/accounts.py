"""docs/accounts.md."""

from tests.pages.hooks import Names, after, client_of


@after('@router.get("/greeting")')
async def without_a_token_the_answer_is_401(names: Names) -> None:
    async with client_of(names["router"]) as client:
        assert (await client.get("/greeting")).status_code == 401
