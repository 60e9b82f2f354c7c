#!lua flags=allow-oom
-- Overwrite entries with a time to live and take them off the dirty set, also at the memory limit:
-- it is what makes memory free again.
--
-- KEYS  the dirty set, then the entry keys
-- ARGV  the time to live in seconds, then of each entry its id and its new value
local ids = {}
for n = 2, #KEYS do
  redis.call('SET', KEYS[n], ARGV[2 * n - 1], 'EX', ARGV[1])
  ids[n - 1] = ARGV[2 * n - 2]
end
return redis.call('ZREM', KEYS[1], unpack(ids))
