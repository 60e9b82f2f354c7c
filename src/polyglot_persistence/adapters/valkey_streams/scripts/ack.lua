#!lua flags=allow-oom
-- Acknowledge messages and delete them in one step: XACK alone leaves them in the stream. A script,
-- because at the memory limit Redis 7 refuses to queue commands of a transaction.
--
-- KEYS  the stream
-- ARGV  group, then the ids
for n = 2, #ARGV do
  redis.call('XACK', KEYS[1], ARGV[1], ARGV[n])
  redis.call('XDEL', KEYS[1], ARGV[n])
end
return #ARGV - 1
