#!lua flags=allow-oom
-- Overwrite entries with a time to live and take them off the dirty set, also at the memory limit:
-- it is what makes memory free again.
--
-- An entry that is dirty and says something else than what was decided stays: it is an order whose
-- fate is open. A clean entry stays clean. Where there is none, only a clean one is made.
--
-- KEYS  the dirty set, then the entry keys
-- ARGV  the time to live in seconds, then of each entry its id, its new value, and the text of the
--       order that was decided, empty if that is the new value's
local before = redis.call('MGET', unpack(KEYS, 2))

local function text_of(entry)
  local newline = string.find(entry, '\n', 1, true)
  return newline and string.sub(entry, newline + 1)
end

local function becomes(old, new, decided)
  local state = string.sub(new, 1, 1)
  if not old then
    return state == 'C'
  end
  local old_state = string.sub(old, 1, 1)
  if old_state == 'D' then
    local text = text_of(old)
    return text == text_of(new) or text == decided
  end
  return old_state == 'X' or state == 'C'
end

local settled = {}
local written = {}
for n = 2, #KEYS do
  local argument = 3 * n - 4
  local key, new = KEYS[n], ARGV[argument + 1]
  local old = written[key] or before[n - 1]
  local old_state = old and string.sub(old, 1, 1)
  if old_state and not string.find(old_state, '[DCX]') then
    -- A newer version's; its mark, if it has one, stays as well.
  elseif becomes(old, new, ARGV[argument + 2]) then
    redis.call('SET', key, new, 'EX', ARGV[1])
    written[key] = new
    settled[#settled + 1] = ARGV[argument]
  elseif old_state ~= 'D' then
    settled[#settled + 1] = ARGV[argument]
  end
end
if #settled == 0 then
  return 0
end
return redis.call('ZREM', KEYS[1], unpack(settled))
