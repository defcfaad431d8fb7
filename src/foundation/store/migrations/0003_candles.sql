-- Candles of one symbol's trades from one time to before another. Epoch and trade id decide opening
-- and closing price: of trades in the same millisecond only the id tells the order. PostgreSQL
-- inlines this function, so it reads only the chunks and the part of the index between the two
-- times. The bounds are typed, so that a date is converted: TimescaleDB evaluates `time_bucket(…) <
-- date` as never true and returns no rows. `greatest` of one value is that value; it hides
-- time_bucket from this rule when a query compares the bucket with a date.
CREATE FUNCTION candles(symbol text, width interval, from_time timestamptz, to_time timestamptz)
RETURNS TABLE (bucket timestamptz, open numeric, high numeric, low numeric, close numeric, volume numeric, quote_volume numeric,
  trades bigint, taker_buy_volume numeric)
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
  SELECT greatest(time_bucket(candles.width, t.trade_time)), first(t.price, (t.epoch::bigint << 53) + t.trade_id), max(t.price),
         min(t.price), last(t.price, (t.epoch::bigint << 53) + t.trade_id), sum(t.quantity), sum(t.price * t.quantity), count(*),
         coalesce(sum(t.quantity) FILTER (WHERE NOT t.is_buyer_maker), 0)
  FROM trades AS t
  WHERE t.symbol = candles.symbol AND t.event_type = 'trade'
    AND t.trade_time >= candles.from_time AND t.trade_time < candles.to_time
  GROUP BY time_bucket(candles.width, t.trade_time);
END;
REVOKE ALL ON FUNCTION candles FROM PUBLIC;
