#!lua flags=allow-oom
-- Remove those of the entries that are dead-lettered.
--
-- KEYS  the entry keys
local removed = 0
for n = 1, #KEYS do
  local entry = redis.call('GET', KEYS[n])
  if entry and entry:sub(1, 1) == 'X' then
    removed = removed + redis.call('DEL', KEYS[n])
  end
end
return removed
