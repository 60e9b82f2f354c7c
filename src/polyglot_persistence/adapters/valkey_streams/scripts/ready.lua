#!lua flags=no-writes
-- Count the messages that no live consumer holds: never delivered, released, or a silent one's.
-- Acknowledged messages are deleted, so a message in the stream that is not pending was never
-- delivered (the group's own `lag` is unknown after a deletion).
--
-- The server's clock measures how long a message was held. While it is behind the latest message,
-- because it was set back, hold times are unknown.
--
-- KEYS  the stream
-- ARGV  group, milliseconds after which any consumer may claim a silent one's messages, the
--       maximum of these to count
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
