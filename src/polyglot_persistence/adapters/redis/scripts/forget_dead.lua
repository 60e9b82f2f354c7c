#!lua flags=allow-oom
-- Remove the dead-lettered ones of the entries.
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
