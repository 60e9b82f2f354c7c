#!lua flags=allow-oom
-- Overwrite entries with a time to live and take them off the dirty set, also at the memory limit:
-- this frees memory.
--
-- A dirty entry that differs from the decided order stays: the fate of its order is open. A clean
-- entry stays clean. Where there is no entry, only a clean one is made. An entry in a state of a
-- newer version stays with its mark.
--
-- Each entry is overwritten first and restored if it has to stay; no other client sees the interim
-- value. This takes one command per order; reading first takes half as long again.
--
-- KEYS  the dirty set, then the entry keys
-- ARGV  the time to live in seconds, then for each entry its id, its new value, and the text of the
--       decided order, empty if the new value contains it
local call, sub, byte, find = redis.call, string.sub, string.byte, string.find
local CLEAN, DIRTY, DEAD = 67, 68, 88
local ttl = ARGV[1]

local function text_of(entry)
  local newline = find(entry, '\n', 1, true)
  return newline and sub(entry, newline + 1)
end

local function is_decided(old, new, decided)
  if sub(old, 2) == sub(new, 2) then
    return true
  end
  local text = text_of(old)
  return text == text_of(new) or text == decided
end

local settled = {}
local argument = 2
for n = 2, #KEYS do
  local key, new = KEYS[n], ARGV[argument + 1]
  local old = call('SET', key, new, 'EX', ttl, 'GET')
  local state = old and byte(old)
  local is_open = false
  if state == DIRTY then
    is_open = not is_decided(old, new, ARGV[argument + 2])
  elseif not old then
    if byte(new) ~= CLEAN then
      call('DEL', key)
    end
  elseif state == CLEAN then
    if byte(new) ~= CLEAN then
      call('SET', key, old, 'EX', ttl)
    end
  else
    is_open = state ~= DEAD
  end
  if is_open then
    call('SET', key, old)
  else
    settled[#settled + 1] = ARGV[argument]
  end
  argument = argument + 3
end
if #settled == 0 then
  return 0
end
return call('ZREM', KEYS[1], unpack(settled))
