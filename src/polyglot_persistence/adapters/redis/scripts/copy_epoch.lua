#!lua flags=allow-oom
-- Store the copy of the cache epoch if the token still exists: the cache was not wiped since.
--
-- KEYS  the token, the epoch's copy
-- ARGV  the token's value, the epoch
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[2], ARGV[2])
return 1
