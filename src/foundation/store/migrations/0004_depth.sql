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
-- was rebuilt from, and the time between their receipts. It is the book of
-- src/foundation/order-book/book-at.ts; a test compares both.
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
  unit    record;
  -- Snapshots that were tried. Books derived from the same one have the same horizon.
  seen    bigint[] := '{}';
  -- Why the newest anchor gives no book, and from which id another is looked for.
  refusal  text;
  again_id bigint;
  -- The last change before missing ids, and the first one after them.
  before_id   bigint;
  before_time timestamptz;
  after_id    bigint;
  after_time  timestamptz;
  -- The levels by their ranks: asks by rising price, the border, bids by rising price. A quantity is 16
  -- times its units, plus its scale; prices have 8 decimals here, the most there are.
  quantities  bigint[];
  prices      bigint[];
  border      integer;
  best_bid    integer;
  best_ask    integer;
  bid_horizon bigint;
  ask_horizon bigint;
  place       integer;
  reached     bigint;
  takes       boolean;
  has_bid     boolean;
  has_ask     boolean;
BEGIN
  SELECT d.event_time INTO latest FROM depth_updates AS d
  WHERE d.symbol = coin AND d.event_time <= at ORDER BY d.event_time DESC LIMIT 1;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'No change of the order book of % is stored at or before %', coin, at USING ERRCODE = 'P0002';
  END IF;
  -- Event times need not rise with ids.
  SELECT d.epoch, d.first_update_id, d.last_update_id, d.event_time, d.ingestion_timestamp INTO latest FROM depth_updates AS d
  WHERE d.symbol = coin AND d.event_time <= at AND d.event_time >= latest.event_time - interval '1 minute'
  ORDER BY d.epoch DESC, d.last_update_id DESC, d.first_update_id DESC LIMIT 1;

  -- Nothing is known between two changes that do not join.
  SELECT d.epoch, d.first_update_id, d.event_time INTO later FROM depth_updates AS d
  WHERE d.symbol = coin AND (d.epoch, d.last_update_id, d.first_update_id) > (latest.epoch, latest.last_update_id, latest.first_update_id)
    AND d.event_time >= latest.event_time - interval '1 day'
  ORDER BY d.epoch, d.last_update_id, d.first_update_id LIMIT 1;
  IF later.epoch > latest.epoch AND at > latest.event_time THEN
    RAISE EXCEPTION 'The update ids of % began again between % and %', coin, latest.event_time, later.event_time USING ERRCODE = 'P0002',
      HINT = book_known_again(coin, later.epoch, later.first_update_id - 1);
  ELSIF later.first_update_id > latest.last_update_id + 1 AND at > latest.event_time THEN
    RAISE EXCEPTION 'The update ids % to % of % are missing, between % and %', latest.last_update_id + 1, later.first_update_id - 1, coin,
      latest.event_time, later.event_time USING ERRCODE = 'P0002', HINT = book_known_again(coin, latest.epoch, later.first_update_id - 1);
  END IF;

  again_id := latest.last_update_id + 1;
  -- Another snapshot may have more levels, and so a wider horizon.
  FOR tried IN 1..3 LOOP
    SELECT s.last_update_id, s.ingestion_timestamp, s.bids, s.asks, s.bid_horizon, s.ask_horizon,
           coalesce(s.anchor_update_id, s.last_update_id) AS from_id, coalesce(s.anchor_timestamp, s.ingestion_timestamp) AS from_time
    INTO anchor FROM depth_snapshots AS s
    WHERE s.symbol = coin AND s.epoch = latest.epoch AND s.last_update_id <= latest.last_update_id
      AND coalesce(s.anchor_update_id, s.last_update_id) <> ALL (seen)
    ORDER BY s.last_update_id DESC, s.kind DESC, s.level_limit DESC, s.ingestion_timestamp LIMIT 1;
    EXIT WHEN NOT FOUND;

    bid_horizon := anchor.bid_horizon * 100000000;
    ask_horizon := anchor.ask_horizon * 100000000;
    quantities := '{0}';
    prices := '{0}';
    best_bid := 0;
    best_ask := 2147483647;
    place := 0;
    reached := anchor.last_update_id;
    before_id := NULL;
    after_id := NULL;
    FOR unit IN
      WITH changes AS MATERIALIZED (
        SELECT 1 AS place, NULL::bigint AS first_update_id, anchor.last_update_id, NULL::timestamptz AS event_time, anchor.bids, anchor.asks
        UNION ALL
        SELECT 1 + row_number() OVER (ORDER BY d.last_update_id, d.first_update_id, d.event_time), d.first_update_id, d.last_update_id,
               d.event_time, d.bids, d.asks
        FROM depth_updates AS d
        WHERE d.symbol = coin AND d.epoch = latest.epoch
          AND d.last_update_id >= anchor.last_update_id AND d.last_update_id <= latest.last_update_id
          AND d.event_time >= anchor.ingestion_timestamp - interval '1 day' AND d.event_time <= latest.event_time + interval '1 day'
      ), units AS (
        -- Each change is announced by a row whose price is below all bids.
        SELECT c.place, c.first_update_id, c.last_update_id, c.event_time, true AS is_bid, -1::bigint AS price, 0::bigint AS quantity
        FROM changes AS c
        UNION ALL
        SELECT c.place, NULL, NULL, NULL, true, u.price * (10 ^ (8 - (get_byte(c.bids, 0) >> 4)))::bigint,
               CASE WHEN u.quantity > 0 THEN u.quantity * 16 + (get_byte(c.bids, 0) & 15) ELSE 0 END
        FROM changes AS c, unpack_units(c.bids) AS u
        UNION ALL
        SELECT c.place, NULL, NULL, NULL, false, u.price * (10 ^ (8 - (get_byte(c.asks, 0) >> 4)))::bigint,
               CASE WHEN u.quantity > 0 THEN u.quantity * 16 + (get_byte(c.asks, 0) & 15) ELSE 0 END
        FROM changes AS c, unpack_units(c.asks) AS u
      )
      SELECT u.*, dense_rank() OVER (ORDER BY u.is_bid, u.price)::integer AS rank FROM units AS u
      -- The last row ends the last change.
      UNION ALL SELECT 2147483647, NULL, NULL, NULL, NULL, NULL, NULL, NULL
      ORDER BY 1, 3
    LOOP
      IF unit.place = place THEN
        CONTINUE WHEN NOT takes;
        quantities[unit.rank] := unit.quantity;
        prices[unit.rank] := unit.price;
        IF unit.quantity > 0 THEN
          IF unit.is_bid THEN
            IF unit.rank > best_bid THEN best_bid := unit.rank; END IF;
          ELSIF unit.rank < best_ask THEN
            best_ask := unit.rank;
          END IF;
        END IF;
        CONTINUE;
      END IF;

      IF place > 0 AND takes THEN
        best_bid := greatest(best_bid, border);
        best_ask := least(best_ask, border);
        WHILE best_bid > border AND coalesce(quantities[best_bid], 0) = 0 LOOP best_bid := best_bid - 1; END LOOP;
        WHILE best_ask < border AND coalesce(quantities[best_ask], 0) = 0 LOOP best_ask := best_ask + 1; END LOOP;
        has_bid := best_bid > border AND (bid_horizon IS NULL OR prices[best_bid] >= bid_horizon);
        has_ask := best_ask < border AND (ask_horizon IS NULL OR prices[best_ask] <= ask_horizon);
        -- While the best bid stands no ask can be at or below its price, and changes show every later one: so
        -- the asks are exact up to there from now on, and likewise the bids. A crossed book is no evidence.
        IF best_bid = border OR best_ask = border OR prices[best_bid] < prices[best_ask] THEN
          IF has_bid AND prices[best_bid] > ask_horizon THEN ask_horizon := prices[best_bid]; END IF;
          IF has_ask AND prices[best_ask] < bid_horizon THEN bid_horizon := prices[best_ask]; END IF;
        END IF;
      END IF;

      -- A change has to begin at or below the next id. A longer one, of another connection, may still close a hole.
      place := unit.place;
      takes := place = 1 OR (unit.last_update_id > reached AND unit.first_update_id <= reached + 1);
      border := coalesce(unit.rank, border);
      IF place > 1 AND (takes OR unit.last_update_id <= reached) THEN
        reached := greatest(reached, unit.last_update_id);
        before_id := unit.last_update_id;
        before_time := unit.event_time;
        after_id := NULL;
      ELSIF place > 1 AND after_id IS NULL THEN
        after_id := unit.first_update_id;
        after_time := unit.event_time;
      END IF;
    END LOOP;

    -- Its receipt may be of a clock that was days ahead: no change was found.
    IF after_id IS NULL AND reached < latest.last_update_id THEN
      before_id := reached;
      before_time := anchor.from_time;
      after_id := latest.last_update_id + 1;
      after_time := latest.event_time;
    END IF;
    IF after_id IS NOT NULL THEN
      EXIT WHEN refusal IS NOT NULL;
      again_id := after_id - 1;
      IF before_id IS NULL THEN
        SELECT d.last_update_id, d.event_time INTO before_id, before_time FROM depth_updates AS d
        WHERE d.symbol = coin AND d.epoch = latest.epoch AND d.last_update_id < after_id
        ORDER BY d.last_update_id DESC, d.first_update_id DESC LIMIT 1;
      END IF;
      refusal := CASE WHEN before_id IS NULL
        THEN format('The snapshot with update id %s of %s is older than the first stored change', anchor.last_update_id, coin)
        ELSE format('The update ids %s to %s of %s are missing, between %s and %s', before_id + 1, after_id - 1, coin, before_time, after_time) END;
      EXIT;
    END IF;
    has_bid := has_bid OR bid_horizon IS NULL;
    has_ask := has_ask OR ask_horizon IS NULL;
    IF has_bid AND has_ask THEN
      RETURN QUERY
      SELECT b.side, b.level::integer, trim_scale(prices[b.rank] * 0.00000001),
             trim_scale((quantities[b.rank] >> 4) * 10::numeric ^ -(quantities[b.rank] & 15)), trim_scale(b.horizon * 0.00000001),
             round(10000 * abs(b.horizon / (coalesce(prices[nullif(best_bid, border)] + prices[nullif(best_ask, border)],
               2 * prices[nullif(best_bid, border)], 2 * prices[nullif(best_ask, border)]) / 2::numeric) - 1), 2),
             latest.event_time, latest.last_update_id, anchor.from_id, latest.ingestion_timestamp - anchor.from_time
      FROM (
        SELECT 'bid' AS side, row_number() OVER (ORDER BY r DESC) AS level, r AS rank, bid_horizon AS horizon
        FROM generate_series(border + 1, best_bid) AS r
        WHERE quantities[r] > 0 AND (bid_horizon IS NULL OR prices[r] >= bid_horizon)
        UNION ALL
        SELECT 'ask', row_number() OVER (ORDER BY r), r, ask_horizon
        FROM generate_series(best_ask, border - 1) AS r
        WHERE quantities[r] > 0 AND (ask_horizon IS NULL OR prices[r] <= ask_horizon)) AS b
      WHERE b.level <= wanted
      ORDER BY b.side DESC, b.level;
      RETURN;
    END IF;
    refusal := coalesce(refusal, format('The best %s of %s is outside the horizon %s of the snapshot with update id %s (received %s)',
      CASE WHEN has_bid THEN 'ask' ELSE 'bid' END, coin, trim_scale(0.00000001 * CASE WHEN has_bid THEN ask_horizon ELSE bid_horizon END),
      anchor.from_id, anchor.from_time));
    seen := seen || anchor.from_id;
  END LOOP;
  RAISE EXCEPTION '%', coalesce(refusal, format('No snapshot of the order book of %s is stored at or before %s', coin, at))
    USING ERRCODE = 'P0002', HINT = book_known_again(coin, latest.epoch, again_id);
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
