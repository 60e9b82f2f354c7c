#!lua flags=allow-oom
-- Return the id up to which messages may have been delivered before although the group has no
-- trace of it: messages already in the stream when this server began its reign (a restart, or a
-- promotion, may have lost the latest deliveries), or when the group was created.
--
-- KEYS  the stream, and the key that stores that id together with its reign
local reign = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
local known = redis.call('GET', KEYS[2]) or ''
local of, id = string.match(known, '^(%x+) (%d+%-%d+)$')
if of ~= reign then
  local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
  id = last and last[1] or '0-0'
  redis.call('SET', KEYS[2], reign .. ' ' .. id)
end
return id
