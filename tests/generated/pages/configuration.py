"""docs/configuration.md."""

from tests.pages.hooks import Names, after, client_of


@after('"/orders/import"')
async def a_larger_body_is_read_up_to_the_limit_of_the_route(names: Names) -> None:
    async with client_of(names["router"]) as client:
        assert (await client.post("/orders/import", content=b"x" * 2_000_000)).json() == 2_000_000
        assert (await client.post("/orders/import", content=b"x" * 22_000_000)).status_code == 413
