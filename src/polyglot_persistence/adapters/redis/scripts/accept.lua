#!lua
-- Store units as dirty entries; a unit is stored only if none of its members exists.
-- Not flagged allow-oom: at the memory limit the server refuses it before its first write.
--
-- KEYS  the dirty set, then the entry key of every order, unit by unit
-- ARGV  where the id begins in an entry key; the number of units with one member (they come
--       first); the number of other units, and the number of members of each; then for every
--       unit, in the order of KEYS, its score and the entries of its members
--
-- Returns the size of the dirty set, and a list of id and entry of everything stored before.
--
-- One command reads everything and two, or a few, write it: a command costs as much as its work
-- for one order.
local dirty = KEYS[1]
local id_begin = tonumber(ARGV[1])
local singles = tonumber(ARGV[2])
local bulks = tonumber(ARGV[3])

-- Lua can pass about 8,000 values at a time. An even number, since values come in pairs.
local VALUES_MAX = 4000

local there = {}
for first = 2, #KEYS, VALUES_MAX do
  local last = math.min(first + VALUES_MAX - 1, #KEYS)
  for n, entry in ipairs(redis.call('MGET', unpack(KEYS, first, last))) do
    if entry then
      there[KEYS[first + n - 1]] = entry
    end
  end
end

local entries = {}
local marks = {}
local found = {}
local values = 0
local key = 2
local argument = 4 + bulks

for unit = 1, singles + bulks do
  local last = key
  if unit > singles then
    last = key + ARGV[3 + unit - singles] - 1
  end
  local free = true
  for member = key, last do
    local before = there[KEYS[member]]
    if before then
      free = false
      found[#found + 1] = string.sub(KEYS[member], id_begin)
      found[#found + 1] = before
    end
  end
  if free then
    for member = key, last do
      local name = KEYS[member]
      local entry = ARGV[argument + 1 + member - key]
      there[name] = entry
      entries[values + 1] = name
      entries[values + 2] = entry
      marks[values + 1] = ARGV[argument]
      marks[values + 2] = string.sub(name, id_begin)
      values = values + 2
    end
  end
  argument = argument + 2 + last - key
  key = last + 1
end

for first = 1, values, VALUES_MAX do
  local last = math.min(first + VALUES_MAX - 1, values)
  redis.call('MSET', unpack(entries, first, last))
  redis.call('ZADD', dirty, unpack(marks, first, last))
end
return { redis.call('ZCARD', dirty), found }
