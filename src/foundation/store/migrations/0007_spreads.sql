-- Quotes with the figures that are queried most: the mid price, and the spread in price and in
-- basis points of the mid price. Computed on read.
CREATE VIEW spreads AS
SELECT ingestion_timestamp, symbol, update_id, bid_price, ask_price, (bid_price + ask_price) / 2 AS mid_price,
       ask_price - bid_price AS spread, 20000 * (ask_price - bid_price) / nullif(bid_price + ask_price, 0) AS spread_bps
FROM book_ticker;

-- As in migration 5, including the view.
CREATE OR REPLACE FUNCTION tapeline_roles() RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  here   constant name := current_schema();
  wanted record;
  role   name;
BEGIN
  PERFORM pg_advisory_xact_lock(7453910);
  -- Always in this order: two databases that create the roles at once wait for each other, and must
  -- not deadlock.
  FOREACH role IN ARRAY '{tapeline_migrator,tapeline_writer,tapeline_reader}'::name[] LOOP
    CONTINUE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = role);
    BEGIN
      EXECUTE format('CREATE ROLE %I NOLOGIN', role);
    EXCEPTION
      WHEN duplicate_object OR unique_violation THEN NULL; -- Another database has just made it.
      WHEN insufficient_privilege THEN RETURN NEXT format('CREATE ROLE %I NOLOGIN;', role);
    END;
  END LOOP;
  IF (SELECT count(*) FROM pg_roles WHERE rolname IN ('tapeline_migrator', 'tapeline_writer', 'tapeline_reader')) < 3 THEN
    RETURN;
  END IF;

  FOR wanted IN SELECT v.role, v.privilege FROM (VALUES ('tapeline_migrator', 'CREATE'), ('tapeline_migrator', 'USAGE'),
    ('tapeline_writer', 'USAGE'), ('tapeline_reader', 'USAGE')) AS v (role, privilege)
    WHERE NOT has_schema_privilege(v.role, here, v.privilege)
  LOOP
    BEGIN
      EXECUTE format('GRANT %s ON SCHEMA %I TO %I', wanted.privilege, here, wanted.role);
    EXCEPTION
      WHEN insufficient_privilege THEN
        RETURN NEXT format('GRANT %s ON SCHEMA %I TO %I;', wanted.privilege, here, wanted.role);
    END;
  END LOOP;

  -- A user who is no superuser must not give away ownership, and stays the owner and migrator.
  IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
    FOR wanted IN
      SELECT DISTINCT pg_get_userbyid(relowner) AS owner FROM pg_class
      WHERE relnamespace = here::regnamespace AND relname IN ('trades', 'meta', 'schema_migrations')
        AND NOT pg_has_role(relowner, 'tapeline_migrator', 'USAGE')
    LOOP
      BEGIN
        -- The previous owner, perhaps a consumer, keeps its rights.
        EXECUTE format('GRANT tapeline_migrator TO %I', wanted.owner);
      EXCEPTION
        WHEN unique_violation THEN NULL; -- Another database has just done it.
      END;
    END LOOP;
    FOR wanted IN
      SELECT CASE relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END AS kind, format('%I.%I', here, relname) AS name FROM pg_class
      WHERE relnamespace = here::regnamespace AND relowner <> 'tapeline_migrator'::regrole AND relname IN ('schema_migrations',
        'meta', 'trades', 'book_ticker', 'raw_trades', 'agg_trades', 'block_trades', 'spreads', 'gaps', 'dead_letters', 'consumer_offsets')
      UNION ALL
      SELECT 'FUNCTION', oid::regprocedure::text FROM pg_proc
      WHERE pronamespace = here::regnamespace AND proowner <> 'tapeline_migrator'::regrole
        AND proname IN ('drop_old_chunks', 'compress_next_chunk', 'candles', 'tapeline_roles')
    LOOP
      EXECUTE format('ALTER %s %s OWNER TO tapeline_migrator', wanted.kind, wanted.name);
    END LOOP;
  END IF;
  IF pg_has_role(current_user, 'tapeline_migrator', 'USAGE') THEN
    EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE tapeline_migrator IN SCHEMA %I GRANT SELECT ON TABLES TO tapeline_reader', here);
  END IF;
  EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT SELECT ON TABLES TO tapeline_reader', here);

  -- On a hypertable these grants include its chunks, also future ones. As text, which is parsed
  -- each time: TimescaleDB 2.19 adds the chunks to the statement that it gets, and a cached
  -- statement would crash the server.
  EXECUTE 'GRANT SELECT ON schema_migrations, meta, trades, book_ticker, raw_trades, agg_trades, block_trades, spreads, gaps, dead_letters,
    consumer_offsets TO tapeline_reader';
  EXECUTE 'GRANT EXECUTE ON FUNCTION candles TO tapeline_reader';
  EXECUTE 'GRANT SELECT ON schema_migrations TO tapeline_writer';
  EXECUTE 'GRANT SELECT, INSERT ON meta, trades, book_ticker, dead_letters TO tapeline_writer';
  EXECUTE 'GRANT SELECT, INSERT, UPDATE ON gaps, consumer_offsets TO tapeline_writer';
  EXECUTE 'GRANT UPDATE (attempts, reason, first_failed_at, failed_at, resolved_at) ON dead_letters TO tapeline_writer';
  EXECUTE 'GRANT EXECUTE ON FUNCTION drop_old_chunks(integer), compress_next_chunk(integer) TO tapeline_writer';
END $$;
