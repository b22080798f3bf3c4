-- wrk's side of benchmarks/serving.py: prepared bodies in a cycle, every answer checked.
-- Arguments: a file with one body a line; a file with the expected prediction of each; the Lua
-- pattern that finds the prediction in an answer; the one that finds the number of its request,
-- or "-" where answers do not name it: then the value must be one of the expected ones.
local threads = {}

function setup(thread)
  threads[#threads + 1] = thread
end

local function key(text)
  return string.format("%.6f", tonumber(text))
end

function init(args)
  requests, expected, known = {}, {}, {}
  for body in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format("POST", nil, nil, body)
  end
  for line in io.lines(args[2]) do
    expected[#expected + 1] = key(line)
    known[key(line)] = true
  end
  value_pattern, name_pattern = args[3], args[4]
  sent, wrong, first_wrong = 0, 0, ""
end

function request()
  sent = sent % #requests + 1
  return requests[sent]
end

function response(status, headers, body)
  local right = false
  if status == 200 then
    local value = string.match(body, value_pattern)
    if value then
      if name_pattern == "-" then
        right = known[key(value)] or false
      else
        local name = tonumber(string.match(body, name_pattern))
        right = name ~= nil and expected[name] == key(value)
      end
    end
  end
  if not right then
    wrong = wrong + 1
    if first_wrong == "" then first_wrong = status .. " " .. body:sub(1, 300) end
  end
end

function done(summary, latency, requests)
  local wrong, first = 0, ""
  for _, thread in ipairs(threads) do
    wrong = wrong + thread:get("wrong")
    if first == "" then first = thread:get("first_wrong") end
  end
  local e = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"seconds":%f,"p50_ms":%f,"p95_ms":%f,"p99_ms":%f,"wrong":%d,"errors":%d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(95) / 1e3, latency:percentile(99) / 1e3, wrong,
    e.connect + e.read + e.write + e.timeout))
  if first ~= "" then io.write("FIRST WRONG " .. first .. "\n") end
end
