-- Passes an event on to the servers with subscribers of its channels, and keeps it where it is to
-- be kept. What a client sent, and that a cache was missed, goes to whoever tells webhooks, too. Returns
-- for each key its epoch and offset where the channel keeps history, otherwise nothing.
-- ARGV: prefix, server, message, number, epoch of histories that begin now; then for each key how many
-- milliseconds to keep the event as the last one, or, for what goes to webhooks and is not kept so, 'c',
-- or 'n' when it is to wait for them if nobody listens; and its history's events, milliseconds and
-- bytes, or nothing
local prefix, server, message, news_max = ARGV[1], ARGV[2], ARGV[3], 4000
if redis.call('EXISTS', prefix .. 'server:' .. server) == 0
  or redis.call('EXISTS', prefix .. 'mute:' .. server) == 1 then
  return redis.error_reply('LOST the lease is gone')
end
local positions = {}
for i = 6, #ARGV, 3 do
  local key, keep, rule = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if keep == 'c' or keep == 'n' then
    local heard = redis.call('PUBLISH', prefix .. 'in:' .. string.match(key, '^[^/]*'), key .. ' ' .. message)
    if heard == 0 and keep == 'n' then
      redis.call('RPUSH', prefix .. 'news', key .. ' ' .. message)
      redis.call('LTRIM', prefix .. 'news', -news_max, -1)
    end
  elseif keep ~= '0' then
    redis.call('SET', prefix .. 'cache:' .. key, message, 'PX', keep)
  end
  if rule == '' then
    positions[#positions + 1] = ''
    redis.call('PUBLISH', prefix .. 'on:' .. key, message)
  else
    local epoch, offset, placed = place(prefix, key, rule, ARGV[5], ARGV[4], message)
    positions[#positions + 1] = epoch .. offset
    redis.call('PUBLISH', prefix .. 'on:' .. key, placed)
  end
end
return positions
