#!lua flags=allow-oom
-- Take ids off the dirty set whose entry is missing, clean or dead-lettered. The entries are read
-- again, since an order may have been accepted since the first look.
--
-- KEYS  the dirty set, then the entry keys
-- ARGV  the ids
local removed = 0
for n = 2, #KEYS do
  local entry = redis.call('GET', KEYS[n])
  if not entry or string.find(entry, '^[CX]') then
    removed = removed + redis.call('ZREM', KEYS[1], ARGV[n - 1])
  end
end
return removed
