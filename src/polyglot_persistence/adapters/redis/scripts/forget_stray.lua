#!lua flags=allow-oom
-- Take ids off the dirty set whose entry is missing or not dirty. Whoever saw them asks again
-- here, for an order may have been accepted meanwhile.
--
-- KEYS  the dirty set, then the entry keys
-- ARGV  the ids
local removed = 0
for n = 2, #KEYS do
  local entry = redis.call('GET', KEYS[n])
  if not entry or entry:sub(1, 1) ~= 'D' then
    removed = removed + redis.call('ZREM', KEYS[1], ARGV[n - 1])
  end
end
return removed
