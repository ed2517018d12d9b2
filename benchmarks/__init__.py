"""The benchmarks: `make bench ARGS="[parts] [--quick]"`; the numbers are in docs/benchmarks.md.

What is measured, one module per part
    worker             tasks per second, latency, CPU and memory of a worker, beside Celery's defaults and its peers
    async_database     `async def` tasks beside `asyncio.run` in each task
    publishing         requests per second and lag of the event loop of a route that queues a task
    start_up           CPU time and memory until worker, beat and API are ready
    copying            `copier copy` beside that of a bare template
    update             `copier update` beside plain Copier's
    first_task         from an empty folder to the first finished task
    scaling            many waiting messages, queues, consumers; large messages

How
    parts              what a part declares
    context            what a run was asked for, and its folders
    environments       the generated project, and a virtual environment for the peers
    server             one Valkey server for all of a part, and PostgreSQL
    resp               a minimal client of that server
    systems            the workers that are compared: commands and publishers
    processes          their processes: CPU, memory, end
    marks              the file that measured tasks append to
    commands           CPU time of one command
    throughput         tasks per second of a worker on a filled queue
    latency            from publishing to the first line of the task
    load               HTTP requests from many clients

From figures to the page
    results            figures with their machine and versions, as JSON
    stats              medians, spread, percentiles, ratios
    tables             tables in Markdown
    svg                plots
    report             docs/benchmarks.md

`peers/` and `project/` run in those environments, not in this repository's.
"""
