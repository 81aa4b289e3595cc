-- What the scripts about history have in common; it stands before each of them. The events of a channel
-- are a stream, each under its offset; beside it are the epoch, the last offset, and the bytes kept.

-- A day after the last event nobody's position is worth anything any more.
local DAY = 86400000

-- A channel's epoch and last offset; what has none yet begins with this epoch.
local function head(prefix, key, epoch)
  local name = prefix .. 'head:' .. key
  if redis.call('HSETNX', name, 'epoch', epoch) == 1 then
    redis.call('PEXPIRE', name, DAY)
  end
  return redis.call('HGET', name, 'epoch'), tonumber(redis.call('HGET', name, 'offset') or '0')
end

local function milliseconds()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Keeps an event, a message of kind E, in its channel. Returns its epoch, its offset, and the message
-- with them, of kind P.
-- rule: events, milliseconds and bytes to be kept; number: sixteen digits that its server knows it by
local function place(prefix, key, rule, epoch, number, message)
  local last
  epoch, last = head(prefix, key, epoch)
  local name, past = prefix .. 'head:' .. key, prefix .. 'past:' .. key
  local offset = last + 1
  local digits = string.format('%016x', offset)
  local placed = 'P' .. string.sub(message, 2, 26) .. epoch .. digits .. number .. string.sub(message, 27)
  local events, age, bytes = string.match(rule, '(%d+) (%d+) (%d+)')
  events, age, bytes = tonumber(events), tonumber(age), tonumber(bytes)
  local now = milliseconds()
  local kept = redis.call('XLEN', past)
  local held = kept > 0 and tonumber(redis.call('HGET', name, 'bytes') or '0') or 0
  redis.call('XADD', past, offset .. '-0', 't', string.format('%.0f', now), 'm', placed)
  kept, held = kept + 1, held + #placed
  while kept > 1 do
    local first = redis.call('XRANGE', past, '-', '+', 'COUNT', 1)[1]
    if kept <= events and held <= bytes and tonumber(first[2][2]) > now - age then
      break
    end
    redis.call('XDEL', past, first[1])
    kept, held = kept - 1, held - #first[2][4]
  end
  redis.call('HSET', name, 'offset', offset, 'bytes', held)
  redis.call('PEXPIRE', name, age + DAY)
  redis.call('PEXPIRE', past, age)
  return epoch, digits, placed
end
