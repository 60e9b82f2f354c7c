-- wrk's script: sends the lines of a file as requests, round and round, and reports as JSON.
-- Arguments: method, path (of a POST, whose bodies the lines are), file, requests a second (0: as
-- fast as they are answered), number of threads.
local threads = 0
local requests, position = {}, 0

function setup(thread)
  thread:set("index", threads)
  threads = threads + 1
end

local function paced(interval_ms)
  local ffi = require("ffi")
  ffi.cdef("typedef struct { long s; long ns; } timespec_t; int clock_gettime(int, timespec_t *);")
  local spec = ffi.new("timespec_t")
  local function now()
    ffi.C.clock_gettime(1, spec)
    return tonumber(spec.s) * 1000 + tonumber(spec.ns) / 1000000
  end
  local due = now()
  -- By an absolute schedule: what was late is caught up.
  return function()
    due = due + interval_ms
    return math.max(0, math.floor(due - now()))
  end
end

function init(args)
  local method, path, file = args[1], args[2], args[3]
  local rate, number = tonumber(args[4]), tonumber(args[5])
  local headers = {}
  if method == "POST" then
    headers["Content-Type"] = "application/json"
  end
  for line in io.lines(file) do
    if method == "POST" then
      requests[#requests + 1] = wrk.format(method, path, headers, line)
    else
      requests[#requests + 1] = wrk.format(method, line, headers)
    end
  end
  position = math.floor(#requests * index / number)
  if rate > 0 then
    delay = paced(1000 * number / rate)
  end
end

function request()
  position = position % #requests + 1
  return requests[position]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"seconds":%f,"failed":%d,"p50_ms":%f,"p99_ms":%f,"max_ms":%f}\n',
    summary.requests, summary.duration / 1e6,
    errors.status + errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3))
end
