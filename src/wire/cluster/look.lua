-- What is so in one channel: for each server its id, its subscriptions and its users with their
-- info; then the last event if it is kept, and its time to live in milliseconds.
-- ARGV: prefix, key
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
return { servers, redis.call('GET', cache), redis.call('PTTL', cache) }
