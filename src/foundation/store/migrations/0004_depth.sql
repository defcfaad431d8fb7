-- Order books: reading packed levels, and the book at a time. docs/order-books.md has the rules.

-- Reads packed levels (src/foundation/market/packed-levels.ts) in units: with a scale of 2, 6183763 is
-- 61837.63. Byte 0 has the scale of the prices times 16 plus that of the quantities.
CREATE FUNCTION unpack_units(packed bytea)
RETURNS TABLE (price bigint, quantity bigint)
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
  -- A copy, since each get_byte would read a value that is stored elsewhere from there again.
  bytes  constant bytea := packed || '';
  ending constant integer := length(packed);
  place  integer := 1;
  part   integer;
  number bigint;
  shift  integer;
BEGIN
  price := 0;
  WHILE place < ending LOOP
    part := get_byte(bytes, place);
    place := place + 1;
    number := part & 127;
    shift := 7;
    WHILE part > 127 LOOP
      part := get_byte(bytes, place);
      place := place + 1;
      number := number | ((part & 127)::bigint << shift);
      shift := shift + 7;
    END LOOP;
    -- The lowest bit is the sign.
    price := price + ((number >> 1) # -(number & 1));
    part := get_byte(bytes, place);
    place := place + 1;
    quantity := part & 127;
    shift := 7;
    WHILE part > 127 LOOP
      part := get_byte(bytes, place);
      place := place + 1;
      quantity := quantity | ((part & 127)::bigint << shift);
      shift := shift + 7;
    END LOOP;
    RETURN NEXT;
  END LOOP;
END $$;

-- The levels of a side, in the exchange's order: the best first.
CREATE FUNCTION unpack_levels(packed bytea)
RETURNS TABLE (price numeric, quantity numeric)
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
  -- No levels are no bytes, of which there is no first one.
  SELECT round(units.price * 10::numeric ^ -(get_byte(packed || '\x00', 0) >> 4), get_byte(packed || '\x00', 0) >> 4),
         round(units.quantity * 10::numeric ^ -(get_byte(packed || '\x00', 0) & 15), get_byte(packed || '\x00', 0) & 15)
  FROM unpack_units(packed) AS units;
END;

-- Flat rows, one per level; a change without levels has one, with a side of null. Always name a symbol
-- and a short time: unpacking takes a server about a second per 300,000 levels.
CREATE VIEW depth_levels AS
SELECT d.event_time, d.symbol, d.epoch, d.first_update_id, d.last_update_id, l.side, l.level, l.price, l.quantity,
       d.ingestion_timestamp
FROM depth_updates AS d LEFT JOIN LATERAL (
  SELECT 'bid' AS side, level, price, quantity FROM unpack_levels(d.bids) WITH ORDINALITY AS bid (price, quantity, level)
  UNION ALL
  SELECT 'ask', level, price, quantity FROM unpack_levels(d.asks) WITH ORDINALITY AS ask (price, quantity, level)) AS l ON true;

CREATE VIEW depth_snapshot_levels AS
SELECT s.ingestion_timestamp, s.symbol, s.epoch, s.last_update_id, s.kind, l.side, l.level, l.price, l.quantity
FROM depth_snapshots AS s LEFT JOIN LATERAL (
  SELECT 'bid' AS side, level, price, quantity FROM unpack_levels(s.bids) WITH ORDINALITY AS bid (price, quantity, level)
  UNION ALL
  SELECT 'ask', level, price, quantity FROM unpack_levels(s.asks) WITH ORDINALITY AS ask (price, quantity, level)) AS l ON true;

-- The order book of a symbol at a time of the exchange: the best levels of both sides, inside the
-- horizon, where they are exact. Every row says the last change that it contains, the snapshot that it
-- was rebuilt from, and the time between their receipts.
--
-- Refuses, with the reason and the window, where the book is not known: errors of SQLSTATE P0002.
CREATE FUNCTION book_at(symbol text, at timestamptz, levels integer DEFAULT 20)
RETURNS TABLE (side text, level integer, price numeric, quantity numeric, horizon numeric, horizon_bps numeric,
  event_time timestamptz, update_id bigint, anchor_update_id bigint, age interval)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
  coin    constant text := book_at.symbol;
  wanted  constant integer := greatest(book_at.levels, 1);
  latest  record;
  later   record;
  anchor  record;
  hole    record;
  book    record;
  below   bigint;
  tried   integer := 0;
  outside text;
BEGIN
  SELECT d.event_time INTO latest FROM depth_updates AS d
  WHERE d.symbol = coin AND d.event_time <= at ORDER BY d.event_time DESC LIMIT 1;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'No change of the order book of % is stored at or before %', coin, at USING ERRCODE = 'P0002';
  END IF;
  -- Event times need not rise with ids.
  SELECT d.epoch, d.first_update_id, d.last_update_id, d.event_time, d.ingestion_timestamp INTO latest FROM depth_updates AS d
  WHERE d.symbol = coin AND d.event_time <= at AND d.event_time > latest.event_time - interval '1 second'
  ORDER BY d.epoch DESC, d.last_update_id DESC, d.first_update_id DESC LIMIT 1;

  -- Nothing is known between two changes that do not join.
  SELECT d.epoch, d.first_update_id, d.event_time INTO later FROM depth_updates AS d
  WHERE d.symbol = coin AND d.epoch = latest.epoch AND d.last_update_id > latest.last_update_id
    AND d.event_time >= latest.event_time - interval '1 day'
  ORDER BY d.last_update_id, d.first_update_id LIMIT 1;
  IF NOT FOUND THEN
    SELECT d.epoch, d.first_update_id, d.event_time INTO later FROM depth_updates AS d
    WHERE d.symbol = coin AND d.epoch > latest.epoch AND d.event_time >= latest.event_time - interval '1 day'
    ORDER BY d.epoch, d.last_update_id, d.first_update_id LIMIT 1;
  END IF;
  IF later.epoch > latest.epoch AND at > latest.event_time THEN
    RAISE EXCEPTION 'The update ids of % began again between % and %', coin, latest.event_time, later.event_time USING ERRCODE = 'P0002',
      HINT = book_known_again(coin, later.epoch, later.first_update_id - 1);
  ELSIF later.first_update_id > latest.last_update_id + 1 AND at > latest.event_time THEN
    RAISE EXCEPTION 'The update ids % to % of % are missing, between % and %', latest.last_update_id + 1, later.first_update_id - 1, coin,
      latest.event_time, later.event_time USING ERRCODE = 'P0002', HINT = book_known_again(coin, latest.epoch, later.first_update_id - 1);
  END IF;

  below := latest.last_update_id + 1;
  LOOP
    SELECT s.last_update_id, s.ingestion_timestamp, s.bids, s.asks, s.bid_horizon, s.ask_horizon,
           coalesce(s.anchor_update_id, s.last_update_id) AS from_id, coalesce(s.anchor_timestamp, s.ingestion_timestamp) AS from_time
    INTO anchor FROM depth_snapshots AS s
    WHERE s.symbol = coin AND s.epoch = latest.epoch AND s.last_update_id < below
    ORDER BY s.last_update_id DESC, s.kind DESC LIMIT 1;
    EXIT WHEN NOT FOUND;
    tried := tried + 1;

    -- Every id after the anchor has to be in a change. Those of two connections may overlap.
    SELECT missing.reached + 1 AS first, missing.first_update_id - 1 AS last, missing.event_time INTO hole FROM (
      SELECT d.first_update_id, d.event_time, greatest(anchor.last_update_id, max(d.last_update_id) OVER (
        ORDER BY d.first_update_id, d.last_update_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) AS reached
      FROM depth_updates AS d
      WHERE d.symbol = coin AND d.epoch = latest.epoch
        AND d.last_update_id > anchor.last_update_id AND d.last_update_id <= latest.last_update_id
        AND d.event_time >= anchor.ingestion_timestamp - interval '1 day' AND d.event_time <= latest.event_time + interval '1 day') AS missing
    WHERE missing.first_update_id > missing.reached + 1 ORDER BY missing.first_update_id LIMIT 1;
    IF FOUND THEN
      RAISE EXCEPTION 'The update ids % to % of % are missing, up to %, after the snapshot with update id %', hole.first, hole.last, coin,
        hole.event_time, anchor.from_id USING ERRCODE = 'P0002', HINT = book_known_again(coin, latest.epoch, hole.last);
    END IF;

    -- The last quantity of each price counts. Prices have 8 decimals here, the most there are.
    --
    -- While a bid stands no ask can be at or below its price, and changes show every later one: so the asks
    -- are exact up to the highest bid since the anchor, and the bids down to the lowest ask.
    WITH changes AS MATERIALIZED (
      SELECT 0 AS place, anchor.bids, anchor.asks
      UNION ALL
      SELECT row_number() OVER (ORDER BY d.last_update_id, d.first_update_id), d.bids, d.asks FROM depth_updates AS d
      WHERE d.symbol = coin AND d.epoch = latest.epoch
        AND d.last_update_id > anchor.last_update_id AND d.last_update_id <= latest.last_update_id
        AND d.event_time >= anchor.ingestion_timestamp - interval '1 day' AND d.event_time <= latest.event_time + interval '1 day'
    ), units AS MATERIALIZED (
      SELECT c.place, true AS is_bid, u.price * (10 ^ (8 - (get_byte(c.bids, 0) >> 4)))::bigint AS price, u.quantity,
             get_byte(c.bids, 0) & 15 AS scale
      FROM changes AS c, unpack_units(c.bids) AS u
      UNION ALL
      SELECT c.place, false, u.price * (10 ^ (8 - (get_byte(c.asks, 0) >> 4)))::bigint, u.quantity, get_byte(c.asks, 0) & 15
      FROM changes AS c, unpack_units(c.asks) AS u
    ), reach AS (
      SELECT least((anchor.bid_horizon * 100000000)::bigint, min(u.price) FILTER (WHERE NOT u.is_bid AND u.quantity > 0)) AS bids,
             greatest((anchor.ask_horizon * 100000000)::bigint, max(u.price) FILTER (WHERE u.is_bid AND u.quantity > 0)) AS asks
      FROM units AS u
    ), known AS (
      SELECT DISTINCT ON (u.is_bid, u.price) u.is_bid, u.price, u.quantity, u.scale FROM units AS u
      ORDER BY u.is_bid, u.price, u.place DESC
    ), inside AS (
      SELECT k.is_bid, k.price, k.quantity, k.scale,
             row_number() OVER (PARTITION BY k.is_bid ORDER BY CASE WHEN k.is_bid THEN -k.price ELSE k.price END) AS level
      FROM known AS k, reach AS r
      WHERE k.quantity > 0 AND CASE WHEN k.is_bid THEN anchor.bid_horizon IS NULL OR k.price >= r.bids
                                    ELSE anchor.ask_horizon IS NULL OR k.price <= r.asks END
    )
    SELECT array_agg(i.is_bid) AS is_bid, array_agg(i.price) AS price, array_agg(i.quantity) AS quantity, array_agg(i.scale) AS scale,
           array_agg(i.level) AS level, min(i.price) FILTER (WHERE i.level = 1 AND i.is_bid) AS bid,
           min(i.price) FILTER (WHERE i.level = 1 AND NOT i.is_bid) AS ask,
           CASE WHEN anchor.bid_horizon IS NOT NULL THEN (SELECT r.bids FROM reach AS r) END AS bid_horizon,
           CASE WHEN anchor.ask_horizon IS NOT NULL THEN (SELECT r.asks FROM reach AS r) END AS ask_horizon
    INTO book FROM inside AS i WHERE i.level <= wanted;

    outside := CASE WHEN book.bid IS NULL AND book.bid_horizon IS NOT NULL THEN 'bid'
                    WHEN book.ask IS NULL AND book.ask_horizon IS NOT NULL THEN 'ask' END;
    EXIT WHEN outside IS NULL OR tried = 3;
    -- An older snapshot may have more levels. Books derived from the same one have the same horizon.
    below := anchor.from_id;
  END LOOP;
  IF tried = 0 THEN
    RAISE EXCEPTION 'No snapshot of the order book of % is stored at or before %', coin, at USING ERRCODE = 'P0002',
      HINT = book_known_again(coin, latest.epoch, latest.last_update_id + 1);
  ELSIF outside IS NOT NULL THEN
    RAISE EXCEPTION 'The best % of % is outside the horizon of the snapshot with update id % (received %)', outside, coin, anchor.from_id,
      anchor.from_time USING ERRCODE = 'P0002', HINT = book_known_again(coin, latest.epoch, latest.last_update_id + 1);
  END IF;

  RETURN QUERY
  SELECT CASE WHEN b.is_bid THEN 'bid' ELSE 'ask' END, b.level::integer, trim_scale(b.price * 0.00000001),
         trim_scale(b.quantity * 10::numeric ^ -b.scale), trim_scale(h.horizon * 0.00000001),
         round(10000 * abs(h.horizon / (coalesce(book.bid + book.ask, 2 * book.bid, 2 * book.ask) / 2::numeric) - 1), 2),
         latest.event_time, latest.last_update_id, anchor.from_id, latest.ingestion_timestamp - anchor.from_time
  FROM unnest(book.is_bid, book.level, book.price, book.quantity, book.scale) AS b (is_bid, level, price, quantity, scale),
    LATERAL (SELECT CASE WHEN b.is_bid THEN book.bid_horizon ELSE book.ask_horizon END AS horizon) AS h
  ORDER BY b.is_bid DESC, b.level;
END $$;

-- Names the first snapshot at or after an update id.
CREATE FUNCTION book_known_again(coin text, within integer, from_id bigint) RETURNS text
LANGUAGE sql STABLE
BEGIN ATOMIC
  SELECT coalesce((
    SELECT format('The book is known again from update id %s, received %s', s.last_update_id, s.ingestion_timestamp)
    FROM depth_snapshots AS s
    WHERE s.symbol = coin AND s.epoch = within AND s.last_update_id >= from_id AND s.kind = 'rest'
    ORDER BY s.last_update_id LIMIT 1), 'No later snapshot is stored yet');
END;

DO $$
DECLARE
  own regprocedure;
BEGIN
  FOREACH own IN ARRAY '{unpack_units(bytea),unpack_levels(bytea),"book_known_again(text,integer,bigint)",
    "book_at(text,timestamptz,integer)"}'::regprocedure[]
  LOOP
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', own);
  END LOOP;
  EXECUTE format('ALTER FUNCTION book_at SET search_path = %I, %I, pg_temp', current_schema(),
    (SELECT nspname FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace WHERE extname = 'timescaledb'));
END $$;
