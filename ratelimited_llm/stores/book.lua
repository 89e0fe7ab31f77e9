-- Books an order out of a pool of limits, all parts or none: core/booking_pool.py and core/booking_bucket.py in Lua.
-- What the names and the lines mean is told there; one table of cases tests both spellings.
--
-- KEYS  1 the pool's lines   2 its orders   3 busy-until by member   4 every pool by its last use   5 operators' wishes
-- ARGV  1 the present moment, "" for the server's clock   2 the pool's name   3 member   4 number   5 urgent, "1" or ""
--       6 pause   7 seconds that everything is kept   8 and on: the parts, each as ten words: dimension, amount,
--       period, limit, capacity, configured, held_back, correction, at_most, last_level ("-" for None)
-- Answers one text: wait, booked, members, news, and four words for each limit: dimension, limit, level, period.

local BEYOND, LARGEST, LEAST, LONGEST, MINUTE, AHEAD, MEMORY = 1e18, 1e15, 1e-6, 1e7, 60, 600, 60
local LONGEST_PAUSE, ONE_FIRST, ASK_AGAIN, LATE, ASK_LATER, STEP = 120, 0.2, 0.5, 0.1, 60, 60
local FORGOTTEN_AT_ONCE = 100 -- members at most that one order clears away, so that no order takes long
local INFINITY = math.huge
local min, max = math.min, math.max

local function finite(value, otherwise)
  local number = tonumber(value)
  if number == nil or number ~= number or number == INFINITY or number == -INFINITY then
    return otherwise
  end
  return number
end

local function within(value, low, high)
  return max(low, min(value, high))
end

local function known(value, most)
  local number = finite(value, 0)
  return (number >= LEAST and number <= most) and number or 0
end

local TEN = '^' .. string.rep('(%S+) ', 9) .. '(%S+)$'
local ELEVEN = '^' .. string.rep('(%S+) ', 10) .. '(%S+)$'

local function words(line, usual)
  local found = {string.match(line or '', usual or TEN)}
  if found[1] == nil then
    for word in string.gmatch(line or '', '%S+') do
      found[#found + 1] = word
    end
  end
  return found
end

local FOUR = '%.17g %.17g %.17g %d'
local LINE = string.rep('%.17g ', 10) .. '%.17g'

-- one limit -----------------------------------------------------------------------------------------------------------

local function new(finish)
  return {
    level = 0, stamp = finish, spare = 0, since = finish, later = BEYOND,
    period = MINUTE, learned = 0, stated = 0, stated_until = 0, holds = 0, learned_at = 0,
  }
end

local function read(line, finish)
  local found = words(line, ELEVEN)
  local bucket = new(finish)
  local numbers = {}
  for place = 1, 5 do
    numbers[place] = finite(found[place], nil)
  end
  if numbers[1] and numbers[2] and numbers[3] and numbers[4] and numbers[5] then
    bucket.level, bucket.stamp, bucket.spare, bucket.since, bucket.later = unpack(numbers)
  end
  bucket.period = known(found[6], LONGEST)
  if bucket.period == 0 then bucket.period = MINUTE end
  bucket.learned, bucket.stated = known(found[7], LARGEST), known(found[8], LARGEST)
  bucket.stated_until, bucket.holds = finite(found[9], 0), known(found[10], LARGEST)
  bucket.learned_at = finite(found[11], 0)
  return bucket
end

local function line_of(bucket)
  return string.format(
    LINE, bucket.level, bucket.stamp, bucket.spare, bucket.since, bucket.later,
    bucket.period, bucket.learned, bucket.stated, bucket.stated_until, bucket.holds,
    bucket.learned_at
  )
end

local function hear(bucket, part, now)
  local period, told = known(part.period, LONGEST), known(part.limit, LARGEST)
  if period > 0 then bucket.period = period end
  bucket.holds = known(part.capacity, LARGEST)
  if told == 0 then return end
  if not part.configured then
    bucket.learned, bucket.learned_at = told, now
  elseif told <= bucket.stated or now >= bucket.stated_until then
    bucket.stated, bucket.stated_until = told, max(bucket.stated_until, now + MEMORY)
  end
end

local function rule(bucket, at_most, now)
  if bucket.stated > 0 and (now < bucket.stated_until or bucket.learned == 0) then
    bucket.limit = min(bucket.stated, bucket.learned > 0 and bucket.learned or INFINITY, at_most)
  else
    bucket.limit = min(bucket.learned, at_most)
  end
  bucket.capacity = min(bucket.holds > 0 and bucket.holds or bucket.limit, at_most)
  bucket.rate = bucket.limit / bucket.period
end

local function grown(bucket, now)
  return min(bucket.spare + bucket.rate * max(0, now - bucket.since), bucket.capacity)
end

local function advance(bucket, now, finish)
  local low, high = -2 * bucket.capacity, bucket.capacity
  bucket.stated_until = min(bucket.stated_until, now + AHEAD + MEMORY)
  bucket.level = within(bucket.level + bucket.rate * max(0, finish - bucket.stamp), low, high)
  bucket.stamp = finish
  if finish <= now then
    bucket.spare, bucket.since, bucket.later = bucket.level, now, BEYOND
    return
  end
  bucket.since = min(bucket.since, finish)
  bucket.spare = within(bucket.spare, low, high)
  if bucket.later < BEYOND then
    bucket.later = within(bucket.later, low, high)
    if now >= bucket.since and grown(bucket, now) >= bucket.later then
      bucket.spare, bucket.since, bucket.later = bucket.later, finish, BEYOND
    end
  end
end

local function shift(bucket, amount)
  bucket.level = bucket.level - amount
  bucket.spare = bucket.spare - amount
  if bucket.later < BEYOND then bucket.later = bucket.later - amount end
end

local function take_in_front(bucket, amount)
  if bucket.later <= bucket.spare then
    bucket.spare, bucket.since, bucket.later = bucket.later, bucket.stamp, BEYOND
  end
  shift(bucket, amount)
end

local function correct(bucket, amount)
  shift(bucket, within(finite(amount, 0), -bucket.capacity, bucket.capacity))
  bucket.level = within(bucket.level, -2 * bucket.capacity, bucket.capacity)
  bucket.spare = min(bucket.spare, bucket.capacity)
end

local function bound(bucket, most)
  most = finite(most, nil)
  if most == nil then return end
  most = max(0, most)
  bucket.level, bucket.spare = min(bucket.level, most), min(bucket.spare, most)
  if bucket.later < BEYOND then bucket.later = min(bucket.later, most) end
end

local function turn(bucket, need)
  return max(0, (min(need, bucket.capacity) - bucket.level) / bucket.rate)
end

local function gap(bucket, need, now)
  need = min(need, bucket.capacity)
  if bucket.later < need then return INFINITY end
  local there = grown(bucket, now)
  return there >= need and now or max(now, bucket.since) + (need - there) / bucket.rate
end

local function take_last(bucket, amount, now, moment)
  bucket.level = min(bucket.level + bucket.rate * (moment - bucket.stamp), bucket.capacity) - amount
  bucket.stamp = moment
  if moment > now then
    bucket.later = min(bucket.later, bucket.level)
  else
    bucket.spare, bucket.since, bucket.later = bucket.level, now, BEYOND
  end
end

local function left(bucket, now)
  local level = within(bucket.level, -2 * bucket.capacity, bucket.capacity)
  return min(level + bucket.rate * max(-AHEAD, now - bucket.stamp), bucket.capacity)
end

-- the pool ------------------------------------------------------------------------------------------------------------

local function pairs_of(reply)
  local found = {}
  for place = 1, #reply, 2 do
    found[reply[place]] = reply[place + 1]
  end
  return found
end

local now = tonumber(ARGV[1])
if now == nil then
  local time = redis.call('TIME')
  now = tonumber(time[1]) + tonumber(time[2]) / 1e6
end
local pool_name, member, number = ARGV[2], ARGV[3], tonumber(ARGV[4])
local urgent, pause_asked, kept = ARGV[5] == '1', tonumber(ARGV[6]) or 0, tonumber(ARGV[7])
local state = pairs_of(redis.call('HGETALL', KEYS[1]))
local wishes = pairs_of(redis.call('HGETALL', KEYS[5]))

local function at_most(dimension)
  local limit = finite(wishes['limit ' .. dimension], LARGEST)
  return (limit > 0 and limit < LARGEST) and limit or LARGEST
end

local queue = {}
do
  local found = words(state.pool)
  queue.last = finite(found[1], -1)
  local back = max(0, queue.last - now)
  if back > STEP then redis.call('DEL', KEYS[2], KEYS[3]) end
  queue.finish = max(now, min(finite(found[2], now) - back, now + AHEAD))
  queue.pause = min(finite(found[3], now) - back, now + LONGEST_PAUSE)
  queue.one_first = found[4] == '1'
end

local function record_of(line)
  local found = words(line or '')
  local busy = finite(found[1], INFINITY)
  if #found ~= 4 or busy < now - MEMORY or busy > now + AHEAD + STEP then return -1, now, false end
  return finite(found[2], -1), min(finite(found[3], now), now + AHEAD), found[4] == '1'
end

local function parts()
  local found = {}
  for place = 8, #ARGV do
    local word = words(ARGV[place])
    found[#found + 1] = {
      dimension = word[1], amount = word[2], period = word[3], limit = word[4], capacity = word[5],
      configured = word[6] == '1', held_back = word[7], correction = word[8], at_most = word[9], last_level = word[10],
    }
  end
  return found
end

local function take_in(part)
  local line = state[part.dimension]
  local bucket = line and read(line, queue.finish) or new(queue.finish)
  hear(bucket, part, now)
  rule(bucket, at_most(part.dimension), now)
  if bucket.limit == 0 then return nil end
  if not line then
    local level = part.last_level == '-' and bucket.capacity or finite(part.last_level, 0)
    bucket.level = within(level, -2 * bucket.capacity, bucket.capacity)
    bucket.spare = bucket.level
  end
  advance(bucket, now, queue.finish)
  correct(bucket, part.correction)
  bound(bucket, part.at_most)
  local amount = finite(part.amount, -1)
  if amount < 0 then amount = bucket.capacity end
  local held_back = within(finite(part.held_back, 0), 0, bucket.capacity)
  return {part = part, bucket = bucket, amount = amount, need = urgent and amount or amount + held_back}
end

local function book(wanted)
  local last, front = queue.finish, queue.finish > now and now or INFINITY
  for _, ask in ipairs(wanted) do
    last = max(last, queue.finish + turn(ask.bucket, ask.need))
    front = max(front, gap(ask.bucket, ask.need, now))
  end
  local moment = min(front, last)
  if moment > now + AHEAD then return now + within(moment - now - AHEAD, 1, ASK_LATER), false end
  for _, ask in ipairs(wanted) do
    if front < last then
      take_in_front(ask.bucket, ask.amount)
    else
      take_last(ask.bucket, ask.amount, now, last)
    end
  end
  if front >= last then queue.finish = last end
  return moment, true
end

local function decide(asks)
  if pause_asked > 0 then
    queue.pause = max(queue.pause, now + min(pause_asked, LONGEST_PAUSE))
    queue.one_first = true
  end
  if wishes.paused == '1' then return now + ASK_AGAIN, false end
  if queue.pause > now then return queue.pause, false end
  local wanted = {}
  for _, ask in ipairs(asks) do
    if ask.amount > 0 then wanted[#wanted + 1] = ask end
  end
  if #wanted == 0 then return now, true end
  local moment, booked = book(wanted)
  if booked and queue.one_first then
    queue.one_first = false
    queue.pause = min(moment + ONE_FIRST, now + LONGEST_PAUSE)
  end
  return moment, booked
end

local changed, known_now = {}, {}
local earlier, moment, booked = record_of(redis.call('HGET', KEYS[2], member))
if number < earlier then
  moment, booked = now + LATE, false
elseif number > earlier then
  local asks = {}
  for _, part in ipairs(parts()) do
    asks[#asks + 1] = take_in(part)
  end
  moment, booked = decide(asks)
  local busy = booked and moment or now
  for _, ask in ipairs(asks) do
    if ask.part.configured and ask.bucket.stated == tonumber(ask.part.limit) then
      ask.bucket.stated_until = busy + MEMORY
    end
    known_now[ask.part.dimension] = ask.bucket
    changed[#changed + 1] = ask.part.dimension
    changed[#changed + 1] = line_of(ask.bucket)
  end
  redis.call('HSET', KEYS[2], member, string.format(FOUR, busy, number, moment, booked and 1 or 0))
  redis.call('ZADD', KEYS[3], string.format('%.17g', busy), member)
end
changed[#changed + 1] = 'pool'
changed[#changed + 1] = string.format(FOUR, now, queue.finish, queue.pause, queue.one_first and 1 or 0)
redis.call('HSET', KEYS[1], unpack(changed))

local oldest, latest = string.format('%.17g', now - MEMORY), string.format('%.17g', now + AHEAD + STEP)
if math.floor(now) ~= math.floor(queue.last) then -- once in a second is enough, and the first time
  redis.call('ZADD', KEYS[4], string.format('%.17g', now), pool_name)
  for _, range in ipairs({{'-inf', '(' .. oldest}, {'(' .. latest, '+inf'}}) do
    local gone = redis.call('ZRANGEBYSCORE', KEYS[3], range[1], range[2], 'LIMIT', 0, FORGOTTEN_AT_ONCE)
    if #gone > 0 then
      redis.call('ZREM', KEYS[3], unpack(gone))
      redis.call('HDEL', KEYS[2], unpack(gone))
    end
  end
  for place = 1, 4 do
    redis.call('EXPIRE', KEYS[place], kept)
  end
end

for dimension, line in pairs(state) do
  if dimension ~= 'pool' and not known_now[dimension] then
    local bucket = read(line, queue.finish)
    rule(bucket, at_most(dimension), now)
    if bucket.limit > 0 then known_now[dimension] = bucket end
  end
end
local answer = {
  string.format('%.17g', max(0, moment - now)), booked and 1 or 0,
  max(1, redis.call('ZCOUNT', KEYS[3], oldest, latest)), wishes.news or '0',
}
for dimension, bucket in pairs(known_now) do
  answer[#answer + 1] = string.format('%s %.17g %.17g %.17g', dimension, bucket.limit, left(bucket, now), bucket.period)
end
return table.concat(answer, ' ')
