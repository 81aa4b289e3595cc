-- A channel from afar: 'subscriptions users' if it is occupied, the last event if it is kept, and
-- its time to live in milliseconds. Of a channel that leads to a user, only subscriptions are counted.
-- ARGV: prefix, key
local app, name = string.match(ARGV[2], '^([^/]*)/(.*)$')
local sums = redis.call('HGET', ARGV[1] .. 'app:' .. app, name)
if string.sub(name, 1, 1) == '#' then
  sums = redis.call('HGET', ARGV[1] .. 'channel:' .. ARGV[2], 'n')
  sums = sums and sums .. ' 0'
end
local cache = ARGV[1] .. 'cache:' .. ARGV[2]
return { sums, redis.call('GET', cache), redis.call('PTTL', cache) }
