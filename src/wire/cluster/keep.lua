-- Changes what is remembered of webhooks, for the teller alone.
-- ARGV: prefix, server, then three words for each change: A (nothing counts any more); T or U and
-- whom endpoints are told to be there, or gone; Q, id and letter; S and the id of a settled one; H and
-- how far reports were taken up
local prefix, server = ARGV[1], ARGV[2]
if redis.call('GET', prefix .. 'teller') ~= server
  or redis.call('EXISTS', prefix .. 'server:' .. server) == 0 then
  return redis.error_reply('LOST another server tells webhooks')
end
local told, letters, heard = prefix .. 'told', prefix .. 'letters', prefix .. 'heard'
for i = 3, #ARGV, 3 do
  local word, about = ARGV[i], ARGV[i + 1]
  if word == 'A' then
    redis.call('DEL', told, letters, heard)
  elseif word == 'T' then
    redis.call('SADD', told, about)
  elseif word == 'U' then
    redis.call('SREM', told, about)
  elseif word == 'Q' then
    redis.call('HSET', letters, about, ARGV[i + 2])
  elseif word == 'S' then
    redis.call('HDEL', letters, about)
  else
    redis.call('SET', heard, about)
  end
end
return 1
