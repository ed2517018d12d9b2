"""The Lua scripts of `app.worker.flow_control` and `app.worker.waiting`, for Redis 7 and Valkey 8 or later.

All keys are in the broker's database, so that a task that must wait moves from the unacknowledged messages to a waiting list, and
from there back to its queue, in one step each. As in `transport_scripts`, what can fail is done before the first write.

A rule's name is `flow:KIND:…`, with the kind c (concurrency), t (throttle), d (debounce), r (rate) or u (unique). It has
    NAME:waiting   list of the messages that wait, the oldest last
    NAME:woken     sorted set of the ids that are back in their queue and have a place reserved, by time
    NAME:slots     c: hash of the ids that run, with their delivery tags
    NAME:starts    t: sorted set of the last starts, by time
All rules share `flow:waiting`, a sorted set of the names with waiting messages by the time at which to look at them again, and
`flow:depths`, a hash of how many messages of each queue wait. A task waits for one rule at a time, and gets its places in all of them
at once: tasks that each had a place in one and waited for the other would never start.
"""

from app.worker.transport_scripts import _CLOCK

_DAYS = 2 * 86400
"""Seconds after which what a rule has counted is forgotten."""

_LIBRARY = (
    _CLOCK
    + f"""
local time, index = now(), KEYS[1]
local timeout, reserved = tonumber(ARGV[1]), tonumber(ARGV[2])
local DAYS = {_DAYS}
"""
    + """
local function kind(name)
    return string.sub(name, 6, 6)
end

-- Return how many more tasks may start now, and when to look again if it is none.
local function room(name, limit, per)
    redis.call('ZREMRANGEBYSCORE', name .. ':woken', '-inf', time - reserved)
    local used = redis.call('ZCARD', name .. ':woken')
    if kind(name) == 't' then
        redis.call('ZREMRANGEBYSCORE', name .. ':starts', '-inf', time - per)
        local oldest = redis.call('ZRANGE', name .. ':starts', 0, 0, 'WITHSCORES')
        used = used + redis.call('ZCARD', name .. ':starts')
        return limit - used, oldest[2] and tonumber(oldest[2]) + per or time + 1
    end
    local slots = redis.call('HGETALL', name .. ':slots')
    for i = 1, #slots, 2 do
        -- A slot is held for as long as its message is unacknowledged, and renewed by the worker's heartbeat.
        local renewed = redis.call('ZSCORE', index, slots[i + 1])
        if renewed and tonumber(renewed) > time - timeout then
            used = used + 1
        else
            redis.call('HDEL', name .. ':slots', slots[i])
        end
    end
    return limit - used, time + 1
end

-- Return the first of a task's rules that has no room, and when to look again; `first` is looked at before the others.
local function full_rule(rules, first)
    local found, again
    for i = 1, #rules, 3 do
        local free, at = room(rules[i], tonumber(rules[i + 1]), tonumber(rules[i + 2]))
        if free < 1 and (not found or rules[i] == first) then
            found, again = rules[i], at
        end
    end
    return found, again
end

-- Move waiting messages back to the front of their queues, as many as have room in all of their rules, and reserve their places.
local function wake(name)
    local again, woken = time + 1, {}
    for number = 1, 1000 do
        local entry = redis.call('LINDEX', name .. ':waiting', -1)
        if not entry then
            break
        end
        local message = cmsgpack.unpack(entry)
        -- One that has expired ends when it is delivered, and needs no place; one that was debounced looks for its place then.
        local needs_place = kind(name) ~= 'd' and (message[5] == '' or tonumber(message[5]) > time)
        local full, at
        if needs_place then
            full, at = full_rule(message[6], name)
        end
        if full == name then
            again = at
            break
        end
        redis.call('RPOP', name .. ':waiting')
        if full then
            -- It waits for the other rule, or it would keep those behind it waiting.
            redis.call('LPUSH', full .. ':waiting', entry)
            redis.call('ZADD', 'flow:waiting', at, full)
        else
            for i = 1, needs_place and #message[6] or 0, 3 do
                redis.call('ZADD', message[6][i] .. ':woken', time, message[1])
                redis.call('EXPIRE', message[6][i] .. ':woken', DAYS)
            end
            woken[#woken + 1] = message
        end
    end
    for i = #woken, 1, -1 do
        redis.call('RPUSH', woken[i][3], woken[i][4])
        if redis.call('HINCRBY', 'flow:depths', woken[i][2], -1) <= 0 then
            redis.call('HDEL', 'flow:depths', woken[i][2])
        end
    end
    if redis.call('LLEN', name .. ':waiting') == 0 then
        redis.call('ZREM', 'flow:waiting', name)
    else
        redis.call('ZADD', 'flow:waiting', again, name)
    end
end
"""
)
_WRITES = "#!lua flags=allow-oom\n" + _LIBRARY

START = (
    _WRITES
    + """
-- Take all that a task needs to start, or let it wait: its message moves to the waiting list of the first rule that has no room.
-- KEYS: unacked_index, unacked
-- ARGV: visibility timeout, seconds for which a place is reserved, task id, delivery tag, end of the list's name (its priority),
--       when the task expires or '', name of unique or '', 'finished' or 'started', seconds that it is held,
--       name of debounce or '', number of this call, then for each rule its name, its limit and its period
-- Return 'started', 'waiting', 'expired', 'unroutable', or 'superseded' or 'duplicate' and the other task.
local id, tag = ARGV[3], ARGV[4]
if ARGV[6] ~= '' and tonumber(ARGV[6]) <= time then
    return {'expired'}
end
local message, exchange, queue = string.match(
    redis.call('HGET', KEYS[2], tag) or '', '^%[(.*), "([^"\\\\]*)", "([^"\\\\]*)"%]$'
)
local holder = ARGV[7] ~= '' and redis.call('GET', ARGV[7])
-- A call that begins with "?" may never have queued its task.
if holder and ARGV[8] == 'finished' and holder ~= id and string.sub(holder, 1, 1) ~= '?' then
    return {'duplicate', holder}
end

local rules = {}
for i = 12, #ARGV do
    rules[i - 11] = ARGV[i]
end

local function wait(name, again)
    if not message then
        -- Redis has lost it: only this worker has the task.
        return false
    end
    redis.call('LPUSH', name .. ':waiting', cmsgpack.pack({id, queue, queue .. ARGV[5], message, ARGV[6], rules}))
    redis.call('HINCRBY', 'flow:depths', queue, 1)
    redis.call('ZADD', 'flow:waiting', again, name)
    redis.call('HDEL', KEYS[2], tag)
    redis.call('ZREM', index, tag)
    return true
end

if message and exchange ~= '' then
    return {'unroutable'}
end
if ARGV[10] ~= '' then
    local newest = redis.call('HMGET', ARGV[10], 'newest', 'id', 'due')
    if newest[1] and tonumber(newest[1]) > tonumber(ARGV[11]) then
        return {'superseded', newest[2]}
    end
    redis.call('HSET', ARGV[10], 'newest', ARGV[11], 'id', id)
    redis.call('EXPIRE', ARGV[10], DAYS)
    if newest[3] and tonumber(newest[3]) > time and wait(ARGV[10], tonumber(newest[3])) then
        return {'waiting'}
    end
end
for i = 1, #rules, 3 do
    local name = rules[i]
    local free, again = room(name, tonumber(rules[i + 1]), tonumber(rules[i + 2]))
    -- Its place is reserved, or it runs again.
    local has_place = redis.call('ZSCORE', name .. ':woken', id) or redis.call('HEXISTS', name .. ':slots', id) == 1
    -- Nobody overtakes those that wait.
    if not has_place and (free < 1 or redis.call('LLEN', name .. ':waiting') > 0) then
        for j = 1, #rules, 3 do
            redis.call('ZREM', rules[j] .. ':woken', id)
        end
        if wait(name, free < 1 and again or time) then
            return {'waiting'}
        end
        break
    end
end
for i = 1, #rules, 3 do
    local name = rules[i]
    redis.call('ZREM', name .. ':woken', id)
    if kind(name) == 't' then
        redis.call('ZADD', name .. ':starts', time, tag)
        redis.call('EXPIRE', name .. ':starts', math.ceil(tonumber(rules[i + 2])))
    else
        redis.call('HSET', name .. ':slots', id, tag)
        redis.call('EXPIRE', name .. ':slots', DAYS)
    end
end
if ARGV[7] ~= '' and ARGV[8] == 'finished' then
    redis.call('SET', ARGV[7], id, 'EX', ARGV[9])
elseif holder == id or holder == '?' .. id then
    redis.call('DEL', ARGV[7])
end
return {'started'}
"""
)

END = (
    _WRITES
    + """
-- Give back the slots of a task that has ended, and wake those that wait for them.
-- KEYS: unacked_index
-- ARGV: visibility timeout, seconds for which a place is reserved, task id, delivery tag, name of unique or '', names of rules
if ARGV[5] ~= '' then
    local holder = redis.call('GET', ARGV[5])
    if holder == ARGV[3] or holder == '?' .. ARGV[3] then
        redis.call('DEL', ARGV[5])
    end
end
for i = 6, #ARGV do
    local name = ARGV[i]
    redis.call('ZREM', name .. ':woken', ARGV[3])
    if kind(name) == 'c' and redis.call('HGET', name .. ':slots', ARGV[3]) == ARGV[4] then
        redis.call('HDEL', name .. ':slots', ARGV[3])
    end
    wake(name)
end
"""
)

WAKE = (
    _WRITES
    + """
-- Wake those that may start now: their time has come, or a worker died that held their slot.
-- KEYS: unacked_index
-- ARGV: visibility timeout, seconds for which a place is reserved, the most rules to look at
-- Return the milliseconds until the next rule is to be looked at, -1 if none has waiting messages.
for _, name in ipairs(redis.call('ZRANGE', 'flow:waiting', '-inf', time, 'BYSCORE', 'LIMIT', 0, ARGV[3])) do
    wake(name)
end
local first = redis.call('ZRANGE', 'flow:waiting', 0, 0, 'WITHSCORES')
return first[2] and math.max(0, math.ceil((tonumber(first[2]) - time) * 1000)) or -1
"""
)

ADMIT = (
    "#!lua\n"
    + _CLOCK
    + """
-- Decide whether a task may be queued.
-- KEYS: names of unique, rate and debounce, or '' for a rule that the task does not have
-- ARGV: task id, a holder of unique that has ended or '', seconds within which it is queued, limit and period of the rate,
--       period and longest wait of debounce
-- Return 'admitted' and the number of this call, 'duplicate' and the other task, or 'limited' and the seconds to wait.
local time = now()
local unique, rate, debounce = KEYS[1], KEYS[2], KEYS[3]
local holder = unique ~= '' and redis.call('GET', unique)
if holder and holder ~= ARGV[1] and holder ~= ARGV[2] then
    return {'duplicate', holder}
end
if rate ~= '' then
    redis.call('ZREMRANGEBYSCORE', rate, '-inf', time - tonumber(ARGV[5]))
    if redis.call('ZCARD', rate) >= tonumber(ARGV[4]) then
        local oldest = redis.call('ZRANGE', rate, 0, 0, 'WITHSCORES')
        return {'limited', string.format('%.3f', tonumber(oldest[2]) + tonumber(ARGV[5]) - time)}
    end
    redis.call('ZADD', rate, time, ARGV[1])
    redis.call('EXPIRE', rate, math.ceil(tonumber(ARGV[5])))
end
if unique ~= '' and holder ~= ARGV[1] then
    redis.call('SET', unique, '?' .. ARGV[1], 'EX', ARGV[3])
end
if debounce ~= '' then
    local known = redis.call('HMGET', debounce, 'first', 'due')
    local first = known[2] and tonumber(known[2]) > time and tonumber(known[1]) or time
    local due = time + tonumber(ARGV[6])
    if ARGV[7] ~= '' then
        due = math.min(due, first + tonumber(ARGV[7]))
    end
    redis.call('HSET', debounce, 'first', first, 'due', due)
    redis.call('EXPIRE', debounce, math.ceil(due - time) + 172800)
    if redis.call('ZSCORE', 'flow:waiting', debounce) then
        redis.call('ZADD', 'flow:waiting', due, debounce)
    end
end
return {'admitted', string.format('%.6f', time)}
"""
)

CONFIRM = """#!lua
-- Hold unique for a task that was queued, unless it has ended since.
-- KEYS: name of unique  ARGV: task id, seconds
if redis.call('GET', KEYS[1]) == '?' .. ARGV[1] then
    redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
end
return 1
"""

FORGET = """#!lua flags=allow-oom
-- Forget a task that was not queued.
-- KEYS: names of unique and rate, or ''  ARGV: task id, and '1' if it is certain that no worker can have the task
local holder = KEYS[1] ~= '' and redis.call('GET', KEYS[1])
if holder == '?' .. ARGV[1] or ARGV[2] == '1' and holder == ARGV[1] then
    redis.call('DEL', KEYS[1])
end
if KEYS[2] ~= '' then
    redis.call('ZREM', KEYS[2], ARGV[1])
end
return 1
"""

PUBLISH = """#!lua
-- Queue messages, or none if a queue has as many as it may have, or is no list.
-- KEYS: the list of each message
-- ARGV: limit or 0, end of the lists' names by priority separated by spaces, for each message its queue, the messages
local limit, number, added = tonumber(ARGV[1]), #KEYS, {}
for i = 1, number do
    added[ARGV[2 + i]] = (added[ARGV[2 + i]] or 0) + 1
end
for queue, more in pairs(added) do
    local length = tonumber(redis.call('HGET', 'flow:depths', queue) or 0) + redis.call('LLEN', queue)
    for ending in string.gmatch(ARGV[2], '%S+') do
        length = length + redis.call('LLEN', queue .. ending)
    end
    if limit > 0 and length + more > limit then
        return {queue, length}
    end
end
for i = 1, number do
    redis.call('LPUSH', KEYS[i], ARGV[2 + number + i])
end
return {}
"""
