-- Gives a channel's history another epoch, unless somebody has: clients of this server have missed
-- events that are not kept any more, and an old position is to say nothing from now on.
-- ARGV: prefix, key, the present epoch, the next
local name = ARGV[1] .. 'head:' .. ARGV[2]
if redis.call('HGET', name, 'epoch') == ARGV[3] then
  redis.call('HSET', name, 'epoch', ARGV[4])
end
return 1
