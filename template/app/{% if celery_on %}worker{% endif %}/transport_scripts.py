"""The Lua scripts of `app.worker.transport`, for Redis 7 and Valkey 8 or later.

A script is atomic but is not rolled back: what can fail is done before the first write. `allow-oom`: a full Redis must be
emptied. Messages are passed through as they are, because Lua's JSON changes numbers and empty lists.
"""

_CLOCK = """
local function now()
    local time = redis.call('TIME')
    return tonumber(time[1]) + tonumber(time[2]) / 1000000
end
"""
_IS_OF_ANOTHER_TYPE = """
local function is_of_another_type(reply)
    return string.find(reply.err, 'WRONGTYPE', 1, true) ~= nil
end
"""
_WRITES = "#!lua flags=allow-oom\n" + _CLOCK
_READS = "#!lua flags=no-writes\n" + _CLOCK

TAKE = (
    _WRITES
    + _IS_OF_ANOTHER_TYPE
    + """
-- Acknowledge messages, then take others and register them.
-- KEYS: unacked, unacked_index, the lists of each queue from the highest priority to the lowest
-- ARGV: credit, prefix of the tags, number of the first tag, lists per queue, number of queues, '1' to track the lists,
--       for each queue what a message costs and how its record ends, the tags to acknowledge
local unacked, index = KEYS[1], KEYS[2]
-- These raise if the keys have another type.
redis.call('ZCARD', index)
local is_repeated = redis.call('HEXISTS', unacked, ARGV[2] .. ARGV[3]) == 1
-- A client that repeats a call whose answer it has not seen must not use its tags again.
local credit, number = is_repeated and 0 or tonumber(ARGV[1]), tonumber(ARGV[3])
local lists, queues = tonumber(ARGV[4]), tonumber(ARGV[5])
for i = 7 + 2 * queues, #ARGV, 5000 do
    local last = math.min(i + 4999, #ARGV)
    redis.call('ZREM', index, unpack(ARGV, i, last))
    redis.call('HDEL', unacked, unpack(ARGV, i, last))
end
local taken_at = now()
-- First the credit that is left; below 0 if the last message cost more than there was. Then the error of a list, if any.
local taken, waiting = {0, false}, {}
for queue = 0, queues - 1 do
    waiting[#waiting + 1] = queue
end
-- Queues share the credit; what one does not use goes to the others.
while credit > 0 and #waiting > 0 do
    local more, part = {}, credit / #waiting
    for _, queue in ipairs(waiting) do
        local cost, ending = tonumber(ARGV[7 + 2 * queue]), ARGV[8 + 2 * queue]
        local share = math.max(1, math.floor(part / cost))
        -- Any credit is enough for one message: a queue of expensive ones must not wait until all others are empty.
        local wanted = credit > 0 and math.min(share, math.max(1, math.floor(credit / cost)), 1000) or 0
        local left = wanted
        for list = 1, lists do
            local messages = left > 0 and redis.pcall('RPOP', KEYS[2 + queue * lists + list], left)
            if messages and messages.err then
                if not is_of_another_type(messages) then
                    return messages
                end
                -- It must not keep the worker from its other queues.
                taken[2] = KEYS[2 + queue * lists + list] .. ': ' .. messages.err
            elseif messages then
                for _, message in ipairs(messages) do
                    local tag = ARGV[2] .. number
                    redis.call('HSET', unacked, tag, '[' .. message .. ending)
                    redis.call('ZADD', index, taken_at, tag)
                    taken[#taken + 1], taken[#taken + 2] = queue, message
                    number = number + 1
                end
                left = left - #messages
            end
        end
        credit = credit - (wanted - left) * cost
        if left == 0 then
            more[#more + 1] = queue
        end
    end
    waiting = more
end
if ARGV[6] == '1' then
    -- Redis notifies this client when one of these lists changes: see `CLIENT TRACKING`.
    for i = 3, #KEYS, 5000 do
        redis.call('EXISTS', unpack(KEYS, i, math.min(i + 4999, #KEYS)))
    end
end
taken[1] = credit
return taken
"""
)

RESTORE = (
    _WRITES
    + _IS_OF_ANOTHER_TYPE
    + """
-- Move a message from the unacknowledged ones back to its queue.
-- KEYS: unacked, unacked_index, lists (none if it was not there)
-- ARGV: tag, message, LPUSH or RPUSH, seconds after which it is restored, or '' for at once
local score = redis.call('ZSCORE', KEYS[2], ARGV[1])
if ARGV[4] ~= '' and (not score or tonumber(score) > now() - tonumber(ARGV[4])) then
    return
end
local found = redis.call('HEXISTS', KEYS[1], ARGV[1])
if found == 1 and #KEYS == 2 then
    -- Registered after it was looked for.
    return
end
for i = 3, #KEYS do
    local length = redis.pcall('LLEN', KEYS[i])
    if type(length) == 'table' then
        if not is_of_another_type(length) then
            return length
        end
        -- Other messages must not wait for this one: it is restored after another timeout.
        redis.call('ZADD', KEYS[2], 'XX', now(), ARGV[1])
        return
    end
end
if found == 1 then
    for i = 3, #KEYS do
        redis.call(ARGV[3], KEYS[i], ARGV[2])
    end
    redis.call('HDEL', KEYS[1], ARGV[1])
end
redis.call('ZREM', KEYS[2], ARGV[1])
return found
"""
)

OVERDUE = (
    _READS
    + """
-- Return the tags that were last renewed ARGV[1] seconds ago or longer, at most ARGV[2].
-- KEYS: unacked_index
return redis.call('ZRANGE', KEYS[1], '-inf', now() - tonumber(ARGV[1]), 'BYSCORE', 'LIMIT', 0, ARGV[2])
"""
)

RENEW = (
    _WRITES
    + """
-- Restart the visibility timeout of messages that are still unacknowledged.
-- KEYS: unacked_index  ARGV: tags
local renewed_at = now()
for _, tag in ipairs(ARGV) do
    redis.call('ZADD', KEYS[1], 'XX', renewed_at, tag)
end
"""
)

BIND = (
    _WRITES
    + """
-- Add a queue to the table of an exchange: a worker must be able to start while Redis is full.
-- KEYS: table, table of the queues that do not expire  ARGV: member
redis.call('SADD', KEYS[1], ARGV[1])
redis.call('SADD', KEYS[2], ARGV[1])
"""
)
