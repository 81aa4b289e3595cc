-- What the scripts that change a channel have in common; it stands before each of them.

-- A user is on one server less.
local function leave(users, user)
  if redis.call('HINCRBY', users, user, -1) <= 0 then
    redis.call('HDEL', users, user)
  end
end

-- The subscriptions of a channel are so many more: its sums are kept, or it is gone, and the message
-- tells the other servers. Returns how many there are.
local function change(prefix, key, delta, message)
  local channel, users = prefix .. 'channel:' .. key, prefix .. 'users:' .. key
  local total = redis.call('HINCRBY', channel, 'n', delta)
  local app, name = string.match(key, '^([^/]*)/(.*)$')
  if total <= 0 then
    redis.call('DEL', channel, users)
    redis.call('HDEL', prefix .. 'app:' .. app, name)
  elseif string.sub(name, 1, 1) ~= '#' then
    redis.call('HSET', prefix .. 'app:' .. app, name, total .. ' ' .. redis.call('HLEN', users))
  end
  redis.call('PUBLISH', prefix .. 'on:' .. key, message)
  redis.call('PUBLISH', prefix .. 'in:' .. app, key .. ' ' .. message)
  return total
end

