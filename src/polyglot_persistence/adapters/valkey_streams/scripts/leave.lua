#!lua flags=allow-oom
-- Release all messages of the given consumers and delete these, and any other consumer that holds
-- nothing and has been silent for long. In one step, since deleting a consumer drops its messages.
--
-- KEYS  the stream
-- ARGV  group, the owner of released messages, the idle milliseconds to set on them, the silent
--       milliseconds after which a consumer is deleted, then the consumers
local stream, group, owner, idle = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local silent = tonumber(ARGV[4])

local consumers = redis.pcall('XINFO', 'CONSUMERS', stream, group)
if consumers.err then
  return 0 -- no stream or no group: nothing is held
end

for n = 5, #ARGV do
  local consumer = ARGV[n]
  repeat
    local held = redis.call('XPENDING', stream, group, '-', '+', 1000, consumer)
    for _, pending in ipairs(held) do
      redis.call('XCLAIM', stream, group, owner, 0, pending[1], 'IDLE', idle, 'JUSTID')
    end
  until #held == 0
  redis.call('XGROUP', 'DELCONSUMER', stream, group, consumer)
end

for _, consumer in ipairs(consumers) do
  local facts = {}
  for n = 1, #consumer, 2 do
    facts[consumer[n]] = consumer[n + 1]
  end
  if facts.name ~= owner and facts.pending == 0 and facts.idle > silent then
    redis.call('XGROUP', 'DELCONSUMER', stream, group, facts.name)
  end
end
return 1
