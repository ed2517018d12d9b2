"""Serve this process's metrics to Prometheus at GET /metrics on a separate port.

To add a metric, create an object of `prometheus_client` in a module; it is served with the others.
"""

import functools
import os
import sys
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
    """Serve metrics on `METRICS_HOST` and this port during the block.

    If the port is in use, this process logs a warning and serves no metrics.
    """
    try:
        server, thread = start_http_server(port, metrics_settings.host, _registry())
    except OSError as error:
        # The application must run even if its metrics cannot be served.
        _logger.warning("metrics_not_served", host=metrics_settings.host, port=port, error=str(error))
        server = None
    try:
        yield
    finally:
        # At the end of a process its thread no longer runs, and shutdown() would wait for that for ever.
        if server is not None and not sys.is_finalizing():
            server.shutdown()
            server.server_close()
            thread.join()


@asynccontextmanager
async def collecting(collector: Collector) -> AsyncIterator[None]:
    """Serve the collector's metrics, too, during the block."""
    registry = _registry()
    registry.register(collector)
    try:
        yield
    finally:
        registry.unregister(collector)


@functools.cache
def _registry() -> CollectorRegistry:
    """Return this process's metrics, or those of all processes that share the folder PROMETHEUS_MULTIPROC_DIR."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY
    shared = CollectorRegistry()
    collect_shared: Callable[[CollectorRegistry], object] = MultiProcessCollector
    collect_shared(shared)
    return shared
