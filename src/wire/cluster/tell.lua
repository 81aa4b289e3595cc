-- Passes an event on to the servers with subscribers of its channels, and keeps it where it is to
-- be kept. What a client sent, and that a cache was missed, goes to whoever tells webhooks, too.
-- ARGV: prefix, server, message, then each key with how many milliseconds to keep the event for it;
-- for what goes to webhooks and is not kept 'c', or 'n' when it is to wait for them if nobody listens
local prefix, news_max = ARGV[1], 4000
if redis.call('EXISTS', prefix .. 'server:' .. ARGV[2]) == 0 then
  return redis.error_reply('LOST the lease is gone')
end
for i = 4, #ARGV, 2 do
  local key, keep = ARGV[i], ARGV[i + 1]
  if keep == 'c' or keep == 'n' then
    local heard = redis.call('PUBLISH', prefix .. 'in:' .. string.match(key, '^[^/]*'), key .. ' ' .. ARGV[3])
    if heard == 0 and keep == 'n' then
      redis.call('RPUSH', prefix .. 'news', key .. ' ' .. ARGV[3])
      redis.call('LTRIM', prefix .. 'news', -news_max, -1)
    end
  elseif keep ~= '0' then
    redis.call('SET', prefix .. 'cache:' .. key, ARGV[3], 'PX', keep)
  end
  redis.call('PUBLISH', prefix .. 'on:' .. key, ARGV[3])
end
return 1
