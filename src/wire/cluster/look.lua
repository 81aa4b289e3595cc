-- What is so in one channel: for each server its id, its subscriptions and its users with their
-- info; then the last event if it is kept, and its time to live in milliseconds. Where history is
-- kept, further its epoch, the last offset, the time in milliseconds, and the events: their time
-- and the message.
-- ARGV: prefix, key, the epoch of a history that begins now, or nothing
local prefix, key = ARGV[1], ARGV[2]
local servers = {}
local counts = redis.call('HGETALL', prefix .. 'channel:' .. key)
for i = 1, #counts, 2 do
  local server = counts[i]
  if server ~= 'n' then
    local members = redis.call('HGETALL', prefix .. 'members:' .. server .. ':' .. key)
    servers[#servers + 1] = { server, counts[i + 1], members }
  end
end
local cache = prefix .. 'cache:' .. key
local cached, left = redis.call('GET', cache), redis.call('PTTL', cache)
if ARGV[3] == '' then
  return { servers, cached, left }
end
local epoch, offset = head(prefix, key, ARGV[3])
local events = {}
for _, event in ipairs(redis.call('XRANGE', prefix .. 'past:' .. key, '-', '+')) do
  events[#events + 1] = { event[2][2], event[2][4] }
end
return { servers, cached, left, epoch, offset, string.format('%.0f', milliseconds()), events }
