-- Passes an event on to the servers with subscribers of its channels, and keeps it where it is to
-- be kept. What a client sent goes to whoever tells webhooks, too.
-- ARGV: prefix, server, message, then each key with how many milliseconds to keep the event for it;
-- 'c' for an event of a client, which is not kept
local prefix = ARGV[1]
if redis.call('EXISTS', prefix .. 'server:' .. ARGV[2]) == 0 then
  return redis.error_reply('LOST the lease is gone')
end
for i = 4, #ARGV, 2 do
  if ARGV[i + 1] == 'c' then
    local app = string.match(ARGV[i], '^[^/]*')
    redis.call('PUBLISH', prefix .. 'in:' .. app, ARGV[i] .. ' ' .. ARGV[3])
  elseif ARGV[i + 1] ~= '0' then
    redis.call('SET', prefix .. 'cache:' .. ARGV[i], ARGV[3], 'PX', ARGV[i + 1])
  end
  redis.call('PUBLISH', prefix .. 'on:' .. ARGV[i], ARGV[3])
end
return 1
