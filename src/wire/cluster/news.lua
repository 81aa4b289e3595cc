-- Takes what was kept for whoever tells webhooks while nobody did, some at a time: each a channel's
-- key, a blank and a message. For the teller alone.
-- ARGV: prefix, server, how many at a time
local prefix, server = ARGV[1], ARGV[2]
if redis.call('GET', prefix .. 'teller') ~= server
  or redis.call('EXISTS', prefix .. 'server:' .. server) == 0 then
  return redis.error_reply('LOST another server tells webhooks')
end
local news = prefix .. 'news'
local taken = redis.call('LRANGE', news, 0, ARGV[3] - 1)
redis.call('LTRIM', news, ARGV[3], -1)
return taken
