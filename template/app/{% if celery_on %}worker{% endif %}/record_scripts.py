"""The Lua scripts of task records, for Redis 7 and Valkey 8 or later; `app.worker.records` and `result_backend` run them.

A record is one text, a line per field (`FIELDS`): less than half the memory of a hash, whose values may not exceed 64 bytes to
be stored compactly. Each index is a sorted set of task ids by the time at which the task was queued, in microseconds. SUCCESS has
no index: most tasks are in that state, so that a page of them is found among all.

A script is atomic but is not rolled back: it judges first and writes last. Texts from clients are passed through as they are.
"""

from app.worker.broker import lua_script

CHANGING = (
    "state",
    "queued",
    "started",
    "finished",
    "next_retry",
    "attempt",
    "redeliveries",
    "worker",
    "error",
    "progress",
    "attempts",
)
"""What scripts change. Times are microseconds since 1970 by Redis's clock."""

DESCRIPTION = ("name", "queue", "owner", "args", "kwargs", "parent", "root", "group", "replay_of", "eta")
"""What never changes, as the message has it."""

FIELDS = CHANGING + DESCRIPTION

SUFFIX = b"/record"
"""The end of a record's key, after that of the task's result."""

MESSAGE_SUFFIX = b"/message"
"""The end of the key of the message with which a task that failed or was revoked can run again."""

# A few expired entries leave an index for each that is added, so that no call takes long.
RECORD = """
local RESULTS, ID, KEPT, MAX = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local PREFIX = RESULTS .. '/records/'
local FINAL = {SUCCESS = true, FAILURE = true, REVOKED = true}
local LINES = '^' .. string.rep('([^\\n]*)\\n', 11) .. '(.*)$'
-- Of a description: name, queue, owner and root.
local INDEXED = '^([^\\n]*)\\n([^\\n]*)\\n([^\\n]*)\\n' .. string.rep('[^\\n]*\\n', 3) .. '([^\\n]*)'
local STATE, QUEUED, STARTED, FINISHED, NEXT_RETRY, ATTEMPT = 1, 2, 3, 4, 5, 6
local REDELIVERIES, WORKER, ERROR, PROGRESS, ATTEMPTS, DESCRIPTION = 7, 8, 9, 10, 11, 12

local time = redis.call('TIME')
-- As text: Lua would write so large a number with 14 digits.
local NOW = time[1] .. string.format('%06d', time[2])

local function later(seconds)
    return string.format('%.0f', tonumber(NOW) + tonumber(seconds) * 1000000)
end

local function load_record(text)
    local record = text and {string.match(text, LINES)}
    -- What another program stored must not keep a state from being stored.
    local is_valid = record and record[DESCRIPTION] and string.match(record[QUEUED], '^%d+$')
    return is_valid and string.match(record[STATE], '^%u+$') and record
end

local function save_record(record)
    redis.call('SET', KEYS[3], table.concat(record, '\\n'), 'EX', KEPT)
    -- For `app.worker.watch`. Published to nobody in most cases, which costs as little as looking whether somebody listens.
    redis.call('PUBLISH', KEYS[3], record[STATE])
end

local horizon
local function trim(index, most)
    local expired = redis.call('ZRANGE', index, '-inf', '(' .. horizon, 'BYSCORE', 'LIMIT', 0, most)
    if #expired > 0 then
        redis.call('ZREM', index, unpack(expired))
    end
end

local function add(index, score)
    index = PREFIX .. index
    redis.call('ZADD', index, score, ID)
    redis.call('EXPIRE', index, KEPT)
    trim(index, 3)
end

-- Find the time before which records are dropped: they have expired, or there are more than MAX.
local function find_horizon()
    horizon = later(-KEPT)
    local oldest = redis.call('ZRANGE', PREFIX .. 'all', 0, 0, 'WITHSCORES')[2]
    if oldest and tonumber(oldest) > tonumber(horizon) then
        horizon = oldest
    end
end

local function drop_oldest()
    local all = PREFIX .. 'all'
    local surplus, expired = redis.call('ZCARD', all) - tonumber(MAX), tonumber(later(-KEPT))
    local oldest = redis.call('ZRANGE', all, 0, 3, 'WITHSCORES')
    for i = 1, #oldest, 2 do
        if (i + 1) / 2 <= surplus or tonumber(oldest[i + 1]) < expired then
            redis.call('DEL', RESULTS .. oldest[i] .. '/record', RESULTS .. oldest[i] .. '/message')
            redis.call('ZREM', all, oldest[i])
        end
    end
end

local function create_record(state, description)
    redis.call('ZADD', PREFIX .. 'all', NOW, ID)
    redis.call('EXPIRE', PREFIX .. 'all', KEPT)
    drop_oldest()
    find_horizon()
    local name, queue, owner, root = string.match(description, INDEXED)
    add('name/' .. name, NOW)
    add('queue/' .. queue, NOW)
    if owner ~= '' then
        add('owner/' .. owner, NOW)
    end
    if root ~= '' then
        add('root/' .. root, NOW)
    end
    if state ~= 'SUCCESS' then
        add('state/' .. state, NOW)
    end
    return {state, NOW, '', '', '', '', '', '', '', '', '', description}
end

local function set_state(record, state)
    if record[STATE] == state then
        return
    end
    redis.call('ZREM', PREFIX .. 'state/' .. record[STATE], ID)
    if state ~= 'SUCCESS' then
        local index = PREFIX .. 'state/' .. state
        redis.call('ZADD', index, record[QUEUED], ID)
        redis.call('EXPIRE', index, KEPT)
        -- Not each time: every task that starts is added, and leaves when it ends.
        if string.sub(NOW, -1) == '0' then
            find_horizon()
            trim(index, 30)
        end
    end
    record[STATE] = state
end

-- Keep the newest attempts: their end is in the record of an older attempt nowhere else.
local function end_attempt(record)
    local attempt = '{"attempt":' .. (record[ATTEMPT] ~= '' and record[ATTEMPT] or '0')
        .. ',"started":' .. (record[STARTED] ~= '' and record[STARTED] or 'null')
        .. ',"finished":' .. NOW
        .. ',"error":' .. (record[ERROR] ~= '' and record[ERROR] or 'null') .. '}'
    local attempts = record[ATTEMPTS] ~= '' and record[ATTEMPTS] .. '\\t' .. attempt or attempt
    while #attempts > 1000 and string.find(attempts, '\\t', 1, true) do
        attempts = string.gsub(attempts, '^[^\\t]*\\t', '')
    end
    record[ATTEMPTS] = attempts
end

-- ARGV: 6 what keys of results begin with, 7 id, 8 seconds for which records are stored, 9 how many, 10 state, 11 description or '',
--       12 attempt or '', 13 worker, 14 error or progress as JSON, 15 seconds until the next attempt
-- A state that is none of these is a task's own: its progress.
local function write_record(text, state, redeliveries)
    local record = load_record(text)
    if not record then
        if ARGV[11] == '' then
            -- It was never queued: there is nothing to show.
            return
        end
        record = create_record(FINAL[state] and state or 'PENDING', ARGV[11])
    elseif FINAL[record[STATE]] then
        return
    end
    -- This script runs again if its answer was lost.
    local is_repeated = record[STATE] == state and record[ATTEMPT] == ARGV[12]
    if ARGV[12] ~= '' then
        record[ATTEMPT], record[WORKER] = ARGV[12], ARGV[13]
    end
    if state == 'STARTED' then
        record[STARTED], record[NEXT_RETRY], record[ERROR], record[PROGRESS] = NOW, '', '', ''
        if redeliveries > 0 then
            record[REDELIVERIES] = redeliveries
        end
    elseif state == 'RETRY' then
        record[ERROR], record[NEXT_RETRY] = ARGV[14], later(ARGV[15])
        if not is_repeated then
            end_attempt(record)
        end
    elseif FINAL[state] then
        record[ERROR], record[NEXT_RETRY], record[FINISHED] = ARGV[14], '', NOW
    else
        record[PROGRESS] = ARGV[14]
        save_record(record)
        return
    end
    set_state(record, state)
    save_record(record)
end
"""
"""Functions of the scripts that store a state. Their keys: 1 the result, 2 its owner, 3 the record."""

PUBLISH = lua_script(
    "#!lua\n"
    + RECORD
    + """
-- ARGV: 1 result, 2 seconds for which it is stored, 3 owner or '', 10 state: PENDING or UNTRACKED, 11 description or ''
-- Return the id if nothing was stored of such a task: what `FORGET` may delete.
local current = redis.call('GET', KEYS[1])
local state = current and string.match(current, '^{"status": ?"(%u+)"')
-- First: without its owner a task would be nobody's.
if ARGV[3] ~= '' then
    redis.call('SET', KEYS[2], ARGV[3], 'EX', ARGV[2])
end
-- A retry is published under the same id and must not overwrite the state.
if not current or ARGV[10] == 'UNTRACKED' and not FINAL[state] then
    redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
end
if ARGV[11] == '' then
    return
end
local record = load_record(redis.call('GET', KEYS[3]))
if record and FINAL[record[STATE]] and not current then
    -- Another task under the id of one whose result has expired.
    redis.call('ZREM', PREFIX .. 'state/' .. record[STATE], ID)
    redis.call('DEL', RESULTS .. ID .. '/message')
    record = false
end
local is_new = not current and not record
if not record and FINAL[state] then
    -- The late retry of a task that has ended, whose record was dropped.
    return
elseif not record then
    save_record(create_record(ARGV[10], ARGV[11]))
elseif ARGV[10] == 'UNTRACKED' and record[STATE] == 'PENDING' then
    set_state(record, ARGV[10])
    save_record(record)
end
return is_new and ID
"""
)

FORGET = lua_script(
    "#!lua flags=allow-oom\n"
    + RECORD
    + """
-- Delete what is stored of a task that could not be queued, unless a worker has it nevertheless.
local WAITS = {PENDING = true, UNTRACKED = true}
local record = load_record(redis.call('GET', KEYS[3]))
if not record or not WAITS[record[STATE]] then
    return
end
local name, queue, owner, root = string.match(record[DESCRIPTION], INDEXED)
for _, index in ipairs({'all', 'state/' .. record[STATE], 'name/' .. name, 'queue/' .. queue, 'owner/' .. owner,
        'root/' .. root}) do
    redis.call('ZREM', PREFIX .. index, ID)
end
redis.call('DEL', KEYS[3])
if WAITS[string.match(redis.call('GET', KEYS[1]) or '', '^{"status": ?"(%u+)"')] then
    redis.call('DEL', KEYS[1], KEYS[2])
end
"""
)

PAGE = lua_script(
    """#!lua flags=no-writes
-- Return the newest records that match, and where to continue: an id and its time, or nothing.
-- KEYS: indexes of which each has all that match
-- ARGV: 1 what keys of results begin with, 2 earliest and 3 latest time, 4 the id after which to continue or '', 5 how many to return,
--       6 how many to look at, then for state, name, queue, owner and parent the value or '',
--       12 seconds for which records are stored
local LINES = '^([^\\n]*)\\n' .. string.rep('[^\\n]*\\n', 10) .. '([^\\n]*)\\n([^\\n]*)\\n([^\\n]*)\\n'
    .. '[^\\n]*\\n[^\\n]*\\n([^\\n]*)'
local index, size = KEYS[1], nil
for _, key in ipairs(KEYS) do
    local number = redis.call('ZCARD', key)
    if not size or number < size then
        index, size = key, number
    end
end
local found, seen, offset, last = {}, 0, 0, nil
local wanted, budget = tonumber(ARGV[5]), tonumber(ARGV[6])
-- Expired ones are in an index until others are added to it.
local earliest = string.format('%.0f', math.max(tonumber(ARGV[2]), (redis.call('TIME')[1] - ARGV[12]) * 1000000))
while true do
    local ids = redis.call('ZRANGE', index, ARGV[3], earliest, 'BYSCORE', 'REV', 'LIMIT', offset, 100, 'WITHSCORES')
    for i = 1, #ids, 2 do
        local id, time = ids[i], ids[i + 1]
        -- Of several with the same time, those that were returned come first.
        if ARGV[4] == '' or tonumber(time) < tonumber(ARGV[3]) or id < ARGV[4] then
            if #found >= 2 * wanted or seen >= budget then
                return {last[1], last[2], found}
            end
            last, seen = {id, time}, seen + 1
            local text = redis.call('GET', ARGV[1] .. id .. '/record')
            local state, name, queue, owner, parent = string.match(text or '', LINES)
            if state and (ARGV[7] == '' or ARGV[7] == state) and (ARGV[8] == '' or ARGV[8] == name)
                    and (ARGV[9] == '' or ARGV[9] == queue) and (ARGV[10] == '' or ARGV[10] == owner)
                    and (ARGV[11] == '' or ARGV[11] == parent) then
                found[#found + 1], found[#found + 2] = id, text
            end
        end
    end
    if #ids < 200 then
        return {'', '', found}
    end
    offset = offset + 100
end
"""
)
