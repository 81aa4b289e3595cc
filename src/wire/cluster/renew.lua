-- Renews a server's lease. Returns whom the teller's key names now, and whom it named before; then the
-- servers that have no lease any more. Whoever tells webhooks does so as long as his lease stands.
-- ARGV: prefix, server, milliseconds, and whether it may become the teller: 0 not at all, 1 after one
-- whose lease is gone, 2 also where nobody is named
local prefix, server, stance = ARGV[1], ARGV[2], ARGV[4]
if redis.call('PEXPIRE', prefix .. 'server:' .. server, ARGV[3]) == 0 then
  return redis.error_reply('LOST the lease is gone')
end
local before = redis.call('GET', prefix .. 'teller') or ''
local teller = before
if stance ~= '0' and before ~= server then
  local free = stance == '2'
  if before ~= '' then
    -- A server that joins again succeeds itself.
    local same = string.match(before, '^[^.]*') == string.match(server, '^[^.]*')
    free = same or redis.call('EXISTS', prefix .. 'server:' .. before) == 0
  end
  if free then
    redis.call('SET', prefix .. 'teller', server)
    teller = server
  end
end
local answer = { teller, before }
for _, other in ipairs(redis.call('SMEMBERS', prefix .. 'servers')) do
  if redis.call('EXISTS', prefix .. 'server:' .. other) == 0 then
    answer[#answer + 1] = other
  end
end
return answer
