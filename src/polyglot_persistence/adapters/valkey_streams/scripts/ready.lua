#!lua flags=no-writes
-- Count the messages that no consumer holds: never delivered, released, or with one that is silent.
-- Acknowledged messages are deleted, so what is in the stream and not pending was never delivered
-- (the group's own `lag` is unknown after a deletion).
--
-- KEYS  the stream
-- ARGV  group, milliseconds after which a silent consumer's messages are anybody's, the most of
--       these that are counted
local length = redis.call('XLEN', KEYS[1])
local summary = redis.pcall('XPENDING', KEYS[1], ARGV[1])
if summary.err then
  return length -- no group yet: nothing was delivered
end
local left = redis.call('XPENDING', KEYS[1], ARGV[1], 'IDLE', ARGV[2], '-', '+', ARGV[3])
return length - summary[1] + #left
