#!lua flags=no-writes
-- Count the messages that no consumer holds: never delivered, released, or with one that is silent.
-- Acknowledged messages are deleted, so what is in the stream and not pending was never delivered
-- (the group's own `lag` is unknown after a deletion).
--
-- How long something was held is told by the server's clock. While it is behind the latest message,
-- because it was set back, nothing is known of that.
--
-- KEYS  the stream
-- ARGV  group, milliseconds after which a silent consumer's messages are anybody's, the most of
--       these that are counted
local CLOCK_BACK_MS_MAX = 1000

local length = redis.call('XLEN', KEYS[1])
local summary = redis.pcall('XPENDING', KEYS[1], ARGV[1])
if summary.err then
  return length -- no group yet: nothing was delivered
end
local now = redis.call('TIME')
for _, facts in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local known = {}
  for n = 1, #facts, 2 do
    known[facts[n]] = facts[n + 1]
  end
  local latest = tonumber(string.match(known['last-delivered-id'], '^%d+'))
  if known.name == ARGV[1] and now[1] * 1000 + CLOCK_BACK_MS_MAX < latest then
    return redis.error_reply('CLOCK the clock of the server was set back')
  end
end
local left = redis.call('XPENDING', KEYS[1], ARGV[1], 'IDLE', ARGV[2], '-', '+', ARGV[3])
return length - summary[1] + #left
