#!lua flags=allow-oom
-- Store a token, and remove the copy of the cache epoch, which no longer proves anything.
--
-- KEYS  the token, the epoch's copy
-- ARGV  the token's value
redis.call('SET', KEYS[1], ARGV[1])
return redis.call('DEL', KEYS[2])
