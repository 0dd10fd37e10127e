-- wrk -s wrk.lua URL -- FOLDER
-- Posts the events of FOLDER, which event.rs writes: each of them once, from a place of its own for each thread, and then
-- again from the start. Prints what it counted as one line of JSON.

local record, id_length = 100, 36
local threads = 0

function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

local head, before, between, after, pool, count, at

function init(arguments)
  local function text(name)
    local file = assert(io.open(arguments[1] .. "/" .. name, "rb"))
    local all = file:read("*a")
    file:close()
    return all
  end
  head, before, between, after, pool = text("head"), text("before"), text("between"), text("after"), text("pool")
  count = #pool / record
  -- Two threads at most: each has a half to itself.
  at = math.floor(count / 2) * (number % 2)
end

function request()
  local from = at * record
  at = (at + 1) % count
  local id = pool:sub(from + 1, from + id_length)
  local signature = pool:sub(from + id_length + 1, from + record)
  return head .. signature .. before .. id .. between .. id .. after
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests":%d,"microseconds":%d,"refused":%d,"broken":%d,"p50":%d,"p99":%d,"p999":%d}\n',
    summary.requests, summary.duration, errors.status, errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
