#!lua
-- Store units as dirty entries, each all or nothing, where none of its members is there yet.
-- Not flagged allow-oom: at the memory limit the server refuses it before its first write.
--
-- KEYS  the dirty set, then the entry key of every order, unit by unit
-- ARGV  score, id and entry of every order in the order of KEYS; before them the number of units
--       that have one member (they come first), then of each other unit its number of members
--
-- Returns the size of the dirty set, and a list of id and entry of everything that was there.
local dirty = KEYS[1]
local singles = tonumber(ARGV[1])
local bulks = tonumber(ARGV[2])
local argument = 2 + bulks
local key = 1
local found = {}
local marks = {}

for _ = 1, singles do
  local id = ARGV[argument + 2]
  local before = redis.call('SET', KEYS[key + 1], ARGV[argument + 3], 'NX', 'GET')
  if before then
    found[#found + 1] = id
    found[#found + 1] = before
  else
    marks[#marks + 1] = ARGV[argument + 1]
    marks[#marks + 1] = id
  end
  key = key + 1
  argument = argument + 3
end

for bulk = 1, bulks do
  local size = tonumber(ARGV[2 + bulk])
  local entries = redis.call('MGET', unpack(KEYS, key + 1, key + size))
  local free = true
  for member = 1, size do
    if entries[member] then
      free = false
      found[#found + 1] = ARGV[argument + 3 * member - 1]
      found[#found + 1] = entries[member]
    end
  end
  if free then
    for member = 1, size do
      local at = argument + 3 * (member - 1)
      redis.call('SET', KEYS[key + member], ARGV[at + 3])
      marks[#marks + 1] = ARGV[at + 1]
      marks[#marks + 1] = ARGV[at + 2]
    end
  end
  key = key + size
  argument = argument + 3 * size
end

-- In pieces: Lua can unpack about 8,000 values at a time.
for first = 1, #marks, 4000 do
  redis.call('ZADD', dirty, unpack(marks, first, math.min(first + 3999, #marks)))
end
return { redis.call('ZCARD', dirty), found }
