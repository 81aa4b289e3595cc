-- Renews a server's lease. Returns the servers that have none any more.
-- ARGV: prefix, server, milliseconds
local prefix, server = ARGV[1], ARGV[2]
if redis.call('PEXPIRE', prefix .. 'server:' .. server, ARGV[3]) == 0 then
  return redis.error_reply('LOST the lease is gone')
end
local lost = {}
for _, other in ipairs(redis.call('SMEMBERS', prefix .. 'servers')) do
  if redis.call('EXISTS', prefix .. 'server:' .. other) == 0 then
    lost[#lost + 1] = other
  end
end
return lost
