-- A channel from afar: 'subscriptions users' if it is occupied, the last event if it is kept, and
-- its time to live in milliseconds.
-- ARGV: prefix, key
local app, name = string.match(ARGV[2], '^([^/]*)/(.*)$')
local cache = ARGV[1] .. 'cache:' .. ARGV[2]
return { redis.call('HGET', ARGV[1] .. 'app:' .. app, name), redis.call('GET', cache), redis.call('PTTL', cache) }
