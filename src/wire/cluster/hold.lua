-- What a server holds in one channel from now on: so many subscriptions; these users are there, or
-- not there any more. Sums are kept, and the message tells the other servers.
-- ARGV: prefix, server, key, message, subscriptions, then each user with his info; '' when he is gone
local prefix, server, key, message = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local count = tonumber(ARGV[5])
if redis.call('EXISTS', prefix .. 'server:' .. server) == 0 then
  return redis.error_reply('LOST the lease is gone')
end
local channel = prefix .. 'channel:' .. key
local members = prefix .. 'members:' .. server .. ':' .. key
local users = prefix .. 'users:' .. key
for i = 6, #ARGV, 2 do
  local user, info = ARGV[i], ARGV[i + 1]
  if info ~= '' then
    if redis.call('HSET', members, user, info) == 1 then
      redis.call('HINCRBY', users, user, 1)
    end
  elseif redis.call('HDEL', members, user) == 1 then
    leave(users, user)
  end
end
local before = tonumber(redis.call('HGET', channel, server) or '0')
if count > 0 then
  redis.call('HSET', channel, server, count)
  redis.call('SADD', prefix .. 'channels:' .. server, key)
else
  redis.call('HDEL', channel, server)
  redis.call('SREM', prefix .. 'channels:' .. server, key)
end
return change(prefix, key, count - before, message)
