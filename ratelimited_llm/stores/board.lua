-- Who shares the limits, and what operators want of everybody; `book.lua` is the other half.
--
-- KEYS  1 members by when they were seen   2 what they reported   3 operators' wishes   4 cancelled tags, newest first
--       5 every pool by its last use
-- ARGV  1 the present moment, "" for the server's clock   2 what is to be done   then what it needs:
--   report    member, facts                         answers the wishes
--   leave     member, the start of pools' keys
--   members                                         answers name, seconds since it was seen, facts; and so on
--   pools     the start of pools' keys              answers the wishes, then now, name, lines; name, lines; and so on
--   control   paused ("1", "0", ""), tag ("" for none), dimension, limit ("" to lift it), ...   answers the wishes
-- The wishes are two lists: names and values in turn; and news, moment, tag of every tag in turn.

local MEMORY, DAY, MONTH = 60, 86400, 30 * 86400
local KEPT_TAGS, FORGOTTEN_AT_ONCE, MOST_POOLS = 100, 100, 1000

local now = tonumber(ARGV[1])
if now == nil then
  local time = redis.call('TIME')
  now = tonumber(time[1]) + tonumber(time[2]) / 1e6
end

local function text(number)
  return string.format('%.17g', number)
end

local function wishes()
  redis.call('EXPIRE', KEYS[3], MONTH)
  local tags = {}
  for _, line in ipairs(redis.call('LRANGE', KEYS[4], 0, KEPT_TAGS - 1)) do
    local news, moment, tag = string.match(line, '^(%S+) (%S+) (.*)$')
    if news and now - (tonumber(moment) or 0) < DAY then
      tags[#tags + 1] = news
      tags[#tags + 1] = moment
      tags[#tags + 1] = tag
    end
  end
  return {redis.call('HGETALL', KEYS[3]), tags}
end

local function pools()
  redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', '(' .. text(now - DAY))
  return redis.call('ZREVRANGE', KEYS[5], 0, MOST_POOLS - 1)
end

local todo = {}

function todo.report()
  redis.call('ZADD', KEYS[1], text(now), ARGV[3])
  redis.call('HSET', KEYS[2], ARGV[3], ARGV[4])
  for _, range in ipairs({{'-inf', '(' .. text(now - MEMORY)}, {'(' .. text(now + MEMORY), '+inf'}}) do
    local gone = redis.call('ZRANGEBYSCORE', KEYS[1], range[1], range[2], 'LIMIT', 0, FORGOTTEN_AT_ONCE)
    if #gone > 0 then
      redis.call('ZREM', KEYS[1], unpack(gone))
      redis.call('HDEL', KEYS[2], unpack(gone))
    end
  end
  redis.call('EXPIRE', KEYS[1], DAY)
  redis.call('EXPIRE', KEYS[2], DAY)
  return wishes()
end

function todo.leave()
  redis.call('ZREM', KEYS[1], ARGV[3])
  redis.call('HDEL', KEYS[2], ARGV[3])
  for _, name in ipairs(pools()) do
    redis.call('HDEL', ARGV[4] .. name .. ':orders', ARGV[3])
    redis.call('ZREM', ARGV[4] .. name .. ':busy', ARGV[3])
  end
  return {}
end

function todo.members()
  local found = redis.call('ZRANGEBYSCORE', KEYS[1], text(now - MEMORY), text(now + MEMORY), 'WITHSCORES')
  local answer = {}
  for place = 1, #found, 2 do
    answer[#answer + 1] = found[place]
    answer[#answer + 1] = text(now - tonumber(found[place + 1]))
    answer[#answer + 1] = redis.call('HGET', KEYS[2], found[place]) or ''
  end
  return answer
end

function todo.pools()
  local answer = {wishes(), text(now)}
  for _, name in ipairs(pools()) do
    answer[#answer + 1] = name
    answer[#answer + 1] = redis.call('HGETALL', ARGV[3] .. name)
  end
  return answer
end

function todo.control()
  local news = math.max((tonumber(redis.call('HGET', KEYS[3], 'news')) or 0) + 1, math.floor(now * 1000))
  local changed = false
  if ARGV[3] ~= '' then
    redis.call('HSET', KEYS[3], 'paused', ARGV[3])
    changed = true
  end
  if ARGV[4] ~= '' then
    redis.call('LPUSH', KEYS[4], text(news) .. ' ' .. text(now) .. ' ' .. ARGV[4])
    redis.call('LTRIM', KEYS[4], 0, KEPT_TAGS - 1)
    redis.call('EXPIRE', KEYS[4], DAY)
    changed = true
  end
  for place = 5, #ARGV, 2 do
    if ARGV[place + 1] == '' then
      redis.call('HDEL', KEYS[3], 'limit ' .. ARGV[place])
    else
      redis.call('HSET', KEYS[3], 'limit ' .. ARGV[place], ARGV[place + 1])
    end
    changed = true
  end
  if changed then redis.call('HSET', KEYS[3], 'news', text(news)) end
  return wishes()
end

return todo[ARGV[2]]()
