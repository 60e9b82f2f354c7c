#!lua flags=allow-oom
-- Take messages for a consumer until they hold about the wanted number of orders: first messages
-- that were released or are held by a silent consumer, then those never delivered. A missing group
-- (new or wiped server) is created. Allowed at the memory limit, since draining makes room.
--
-- KEYS  the stream, and the key in which CERTAIN stores its id
-- ARGV  group, consumer, orders wanted, messages at most, milliseconds after which any consumer may
--       claim a silent one's messages, the owner of released messages, and the newest schema that
--       the consumer reads: "<owner>-<schema>" owns messages that only newer consumers read
--
-- Returns a list of {id, earlier deliveries, {field, value, ...}}.
local stream, group, consumer = KEYS[1], ARGV[1], ARGV[2]
local orders_wanted = tonumber(ARGV[3])
local messages_wanted = tonumber(ARGV[4])
local idle = ARGV[5]
local newer = '^' .. ARGV[6] .. '%-(%d+)$'
local schema_max = tonumber(ARGV[7])
local taken = {}

local function wanted()
  return orders_wanted > 0 and #taken < messages_wanted
end

local function take(entry, deliveries)
  local fields = entry[2]
  local orders = 1
  for n = 1, #fields, 2 do
    if fields[n] == 'orders' then
      -- As in the consumer: only a whole number of few digits is a count.
      orders = math.max(tonumber(string.match(fields[n + 1], '^%d%d?%d?%d?%d?%d?$')) or 1, 1)
    end
  end
  orders_wanted = orders_wanted - orders
  taken[#taken + 1] = { entry[1], deliveries, fields }
end

local function left_after(id)
  return redis.pcall('XPENDING', stream, group, 'IDLE', idle, id, '+', messages_wanted)
end

local left = left_after('-')
if left.err then
  if not string.find(left.err, 'NOGROUP', 1, true) then
    return left
  end
  redis.call('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM')
  redis.call('DEL', KEYS[2]) -- another group may have delivered these messages
  left = {}
end
while wanted() and #left > 0 do
  for _, pending in ipairs(left) do
    if not wanted() then
      break
    end
    if (tonumber(string.match(pending[2], newer)) or 0) <= schema_max then
      local claimed = redis.call('XCLAIM', stream, group, consumer, idle, pending[1])
      if claimed[1] then
        take(claimed[1], pending[4])
      end
    end
  end
  left = left_after('(' .. left[#left][1])
end

while wanted() do
  local new = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', 1, 'STREAMS', stream, '>')
  if not new then
    break
  end
  take(new[1][2][1], 0)
end
return taken
