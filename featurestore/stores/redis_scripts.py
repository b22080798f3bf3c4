"""What Redis runs by itself, so that comparing and writing are one step (Lua 5.1).

Times are doubles in Lua: microseconds since 1970 fit exactly until the year 2255.
"""

WRITE = b"""
-- KEYS: the tags hash, then an entity's hash for each row.
-- ARGV: view, tag, _ts field, _hr field, fields to remove from rows of other generations (count
-- first), names of the features' fields (count first), then for each row its values in the order:
-- features, _ts, _hr.
local call, unpack_ = redis.call, struct.unpack
local view, tag, ts_field, hr_field = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if call('HGET', KEYS[1], view) ~= tag then return -1 end

local function event_of(message)
  -- A protobuf Timestamp: 1 = seconds, 2 = nanoseconds, both varints; in microseconds.
  local seconds, nanos, at = 0, 0, 1
  while at <= #message do
    local field = message:byte(at)
    local first, number, scale, inverse = at + 1, 0, 1, 0
    at = first
    while true do
      local byte = message:byte(at)
      if not byte then return nil end
      number = number + byte % 128 * scale
      inverse = inverse + (127 - byte % 128) * scale
      scale, at = scale * 128, at + 1
      if byte < 128 or at - first == 9 then break end
    end
    if at - first == 9 and (message:byte(at) or 0) == 1 then  -- negative: its tenth byte is 1
      number, at = -inverse - 1, at + 1
    end
    if field == 8 then seconds = number elseif field == 16 then nanos = number end
  end
  return seconds * 1000000 + math.floor(nanos / 1000)
end

local removed = tonumber(ARGV[5])
local at = 6 + removed
local fields = tonumber(ARGV[at])
local words = {}
for i = 1, fields do words[2 * i] = ARGV[at + i] end
words[2 * fields + 2], words[2 * fields + 4] = ts_field, hr_field
at = at + fields
local values, written = fields + 2, 0
for row = 2, #KEYS do
  local key, packed = KEYS[row], ARGV[at + values]
  local there = call('HMGET', key, hr_field, ts_field)
  local old, stamp = there[1], there[2]
  local newer = true
  if old and #old >= 24 and old:sub(1, 8) ~= tag then
    if removed > 0 then call('HDEL', key, unpack(ARGV, 6, 5 + removed)) end
  elseif stamp then
    local event, created = unpack_('<i8i8', packed, 9)
    local old_event = event_of(stamp)
    local old_created = old_event
    if old and #old >= 24 then
      local e, c = unpack_('<i8i8', old, 9)
      if e == old_event then old_created = c end
    end
    if old_event then
      newer = event > old_event or (event == old_event and created >= old_created)
    end
  end
  if newer then
    words[1] = key
    for i = 1, values do words[2 * i + 1] = ARGV[at + i] end
    call('HSET', unpack(words))
    written = written + 1
  end
  at = at + values
end
return written
"""
"""Returns how many rows were written, -1 where another generation may be written now."""

PUT_VIEW = b"""
-- KEYS: the views hash, the tags hash. ARGV: view, tag, record.
local there = redis.call('HGET', KEYS[1], ARGV[1])
if there then
  local old, new = cjson.decode(there), cjson.decode(ARGV[3])
  if old.generation > new.generation then return 0 end
  if old.generation == new.generation then
    if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then return 0 end
    local reached = old.until_us ~= cjson.null and old.until_us
    local reaches = new.until_us ~= cjson.null and new.until_us
    if reached and (not reaches or reaches < reached) then return 0 end
  end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
return 1
"""
"""Returns 1 if the record was written, 0 if what is there is ahead of it."""

SWEEP = b"""
-- KEYS: the tags hash, then entities' hashes. ARGV: view, tag, _hr field, all fields of the view.
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return -1 end
local swept = 0
for row = 2, #KEYS do
  local old = redis.call('HGET', KEYS[row], ARGV[3])
  if old and old:sub(1, 8) ~= ARGV[2] then
    redis.call('HDEL', KEYS[row], unpack(ARGV, 3))
    swept = swept + 1
  end
end
return swept
"""
"""Returns how many rows of other generations were removed, -1 as ``WRITE``."""
