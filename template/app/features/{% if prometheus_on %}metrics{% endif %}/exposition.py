"""Serves this process's metrics to Prometheus, at GET /metrics on a port of their own.

A metric of your own is an object of `prometheus_client`, made once in a module: it is served with the others.
"""

import functools
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from app.features.metrics.config import metrics_settings

_logger = structlog.get_logger(__name__)


@contextmanager
def serving(port: int) -> Iterator[None]:
    """Serve metrics on `METRICS_HOST` and this port inside the block.

    Where the port is taken this process serves none, and the log says so.
    """
    try:
        server, thread = start_http_server(port, metrics_settings.host, _registry())
    except OSError as error:
        # Nobody is to do without the application because its numbers cannot be read.
        _logger.warning("metrics_not_served", host=metrics_settings.host, port=port, error=str(error))
        server = None
    try:
        yield
    finally:
        if server is not None:
            server.shutdown()
            server.server_close()
            thread.join()


@asynccontextmanager
async def collecting(collector: Collector) -> AsyncIterator[None]:
    """Serve what the collector reads at each request, too, inside the block."""
    registry = _registry()
    registry.register(collector)
    try:
        yield
    finally:
        registry.unregister(collector)


@functools.cache
def _registry() -> CollectorRegistry:
    """Return the metrics of this process, or those of all that share the folder PROMETHEUS_MULTIPROC_DIR."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY
    shared = CollectorRegistry()
    collect_shared: Callable[[CollectorRegistry], object] = MultiProcessCollector
    collect_shared(shared)
    return shared
