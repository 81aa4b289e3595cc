-- Removes what a lost server held, some channels at a time, and tells the others. Returns how many
-- channels are left; -1 when the server has a lease and nobody insists.
-- ARGV: prefix, server, 1 to insist or 0, channels at a time
local prefix, server = ARGV[1], ARGV[2]
if ARGV[3] == '1' then
  redis.call('DEL', prefix .. 'server:' .. server)
elseif redis.call('EXISTS', prefix .. 'server:' .. server) == 1 then
  return -1
end
local held = prefix .. 'channels:' .. server
for _, key in ipairs(redis.call('SPOP', held, tonumber(ARGV[4]))) do
  local channel = prefix .. 'channel:' .. key
  local members = prefix .. 'members:' .. server .. ':' .. key
  local users = prefix .. 'users:' .. key
  for _, user in ipairs(redis.call('HKEYS', members)) do
    leave(users, user)
  end
  redis.call('DEL', members)
  local before = tonumber(redis.call('HGET', channel, server) or '0')
  redis.call('HDEL', channel, server)
  change(prefix, key, -before, 'G' .. server)
end
local left = redis.call('SCARD', held)
if left == 0 then
  redis.call('SREM', prefix .. 'servers', server)
end
return left
