-- Tables, hypertables and views. All times are timestamptz in UTC.

CREATE EXTENSION IF NOT EXISTS timescaledb;

-- Facts about this database: 'source' names the exchange of its data.
CREATE TABLE meta (
  key        text PRIMARY KEY,
  value      text NOT NULL,
  updated_at timestamptz NOT NULL DEFAULT now()
);

-- Events with ids. The id sequences of the types overlap, so the key includes event_type. It uses
-- the exchange's trade time, because REST and the dumps have no event time.
CREATE TABLE trades (
  trade_time          timestamptz   NOT NULL,
  event_time          timestamptz,
  symbol              text          NOT NULL,
  event_type          text          NOT NULL CHECK (event_type IN ('trade', 'aggTrade', 'blockTrade')),
  epoch               integer       NOT NULL DEFAULT 0 CHECK (epoch BETWEEN 0 AND 1023),
  trade_id            bigint        NOT NULL,
  price               numeric(20,8) NOT NULL,
  quantity            numeric(20,8) NOT NULL,
  first_trade_id      bigint,
  last_trade_id       bigint,
  is_buyer_maker      boolean       NOT NULL,
  ingestion_timestamp timestamptz   NOT NULL,
  source              text          NOT NULL DEFAULT 'stream' CHECK (source IN ('stream', 'backfill', 'archive'))
);
COMMENT ON COLUMN trades.event_time IS 'When the exchange sent the event; null for backfilled and imported rows, because REST and daily files do not give it.';
COMMENT ON COLUMN trades.epoch IS 'Increases by one each time the exchange restarts an id sequence; (epoch::bigint << 53) + trade_id orders all trades of a symbol.';
SELECT create_hypertable('trades', 'trade_time', chunk_time_interval => interval '1 day', create_default_indexes => false);
-- Time precedes the id: queries by time read only what they need, and no row needs a second index.
CREATE UNIQUE INDEX trades_identity ON trades (symbol, event_type, trade_time, trade_id);

-- bookTicker events have no time except their receipt.
CREATE TABLE book_ticker (
  ingestion_timestamp timestamptz   NOT NULL,
  symbol              text          NOT NULL,
  update_id           bigint        NOT NULL,
  bid_price           numeric(20,8) NOT NULL,
  bid_quantity        numeric(20,8) NOT NULL,
  ask_price           numeric(20,8) NOT NULL,
  ask_quantity        numeric(20,8) NOT NULL
);
SELECT create_hypertable('book_ticker', 'ingestion_timestamp', chunk_time_interval => interval '1 day', create_default_indexes => false);
CREATE UNIQUE INDEX book_ticker_identity ON book_ticker (symbol, ingestion_timestamp, update_id);

-- Changes of order books (100 ms each), and whole books. Levels are packed bytes, which unpack_levels
-- reads. The identity has the order in which a book takes them.
CREATE TABLE depth_updates (
  event_time          timestamptz NOT NULL,
  symbol              text        NOT NULL,
  epoch               integer     NOT NULL DEFAULT 0 CHECK (epoch BETWEEN 0 AND 1023),
  first_update_id     bigint      NOT NULL,
  last_update_id      bigint      NOT NULL,
  bids                bytea       NOT NULL,
  asks                bytea       NOT NULL,
  ingestion_timestamp timestamptz NOT NULL
);
COMMENT ON COLUMN depth_updates.bids IS 'Packed levels that changed: unpack_levels(bids). Quantity 0 removes a level. Asks likewise.';
-- pglz saves nothing of packed levels.
ALTER TABLE depth_updates ALTER COLUMN bids SET STORAGE EXTERNAL, ALTER COLUMN asks SET STORAGE EXTERNAL;
SELECT create_hypertable('depth_updates', 'event_time', chunk_time_interval => interval '1 day', create_default_indexes => false);
CREATE UNIQUE INDEX depth_updates_identity ON depth_updates (symbol, epoch, last_update_id, first_update_id, event_time);
CREATE INDEX depth_updates_by_time ON depth_updates (symbol, event_time);

CREATE TABLE depth_snapshots (
  ingestion_timestamp timestamptz NOT NULL,
  symbol              text        NOT NULL,
  epoch               integer     NOT NULL DEFAULT 0 CHECK (epoch BETWEEN 0 AND 1023),
  last_update_id      bigint      NOT NULL,
  kind                text        NOT NULL CHECK (kind IN ('rest', 'derived')),
  level_limit         integer,
  bids                bytea       NOT NULL,
  asks                bytea       NOT NULL,
  bid_horizon         numeric(20,8),
  ask_horizon         numeric(20,8),
  event_time          timestamptz,
  anchor_update_id    bigint,
  anchor_timestamp    timestamptz,
  CHECK ((kind = 'rest') = (level_limit IS NOT NULL)),
  CHECK ((kind = 'derived') = (event_time IS NOT NULL AND anchor_update_id IS NOT NULL AND anchor_timestamp IS NOT NULL))
);
COMMENT ON TABLE depth_snapshots IS 'Whole order books: rest, as the exchange returned them; derived, rebuilt from one of these and depth_updates so that reading is fast.';
COMMENT ON COLUMN depth_snapshots.level_limit IS 'Levels per side that were requested.';
COMMENT ON COLUMN depth_snapshots.bid_horizon IS 'The book is exact at and above this bid; null: it has every bid. Asks likewise, at and below.';
COMMENT ON COLUMN depth_snapshots.event_time IS 'Of the last change in a derived book; its ingestion_timestamp is that of this change.';
COMMENT ON COLUMN depth_snapshots.anchor_update_id IS 'last_update_id of the rest snapshot that a derived book began from; anchor_timestamp is its receipt.';
ALTER TABLE depth_snapshots ALTER COLUMN bids SET STORAGE EXTERNAL, ALTER COLUMN asks SET STORAGE EXTERNAL;
SELECT create_hypertable('depth_snapshots', 'ingestion_timestamp', chunk_time_interval => interval '1 day', create_default_indexes => false);
CREATE UNIQUE INDEX depth_snapshots_identity ON depth_snapshots (symbol, epoch, last_update_id, kind, ingestion_timestamp);

-- A sum over trades counts volume twice, as trades and as aggTrades: query these views instead.
CREATE VIEW raw_trades AS
SELECT trade_time, event_time, symbol, epoch, trade_id, price, quantity, is_buyer_maker,
       CASE WHEN is_buyer_maker THEN 'sell' ELSE 'buy' END AS taker_side, ingestion_timestamp, source
FROM trades WHERE event_type = 'trade';

CREATE VIEW agg_trades AS
SELECT trade_time, event_time, symbol, epoch, trade_id AS agg_trade_id, first_trade_id, last_trade_id, price, quantity,
       is_buyer_maker, CASE WHEN is_buyer_maker THEN 'sell' ELSE 'buy' END AS taker_side, ingestion_timestamp, source
FROM trades WHERE event_type = 'aggTrade';

CREATE VIEW block_trades AS
SELECT trade_time, event_time, symbol, epoch, trade_id AS block_trade_id, price, quantity, is_buyer_maker,
       CASE WHEN is_buyer_maker THEN 'sell' ELSE 'buy' END AS taker_side, ingestion_timestamp, source
FROM trades WHERE event_type = 'blockTrade';

-- Quotes with the figures that are queried most: the mid price, and the spread in price and in
-- basis points of the mid price. Computed on read.
CREATE VIEW spreads AS
SELECT ingestion_timestamp, symbol, update_id, bid_price, ask_price, (bid_price + ask_price) / 2 AS mid_price,
       ask_price - bid_price AS spread, 20000 * (ask_price - bid_price) / nullif(bid_price + ask_price, 0) AS spread_bps
FROM book_ticker;

-- The ledger of gaps, mirrored from its topic; a row changes only to a higher revision.
CREATE TABLE gaps (
  gap_id      text PRIMARY KEY,
  revision    integer     NOT NULL,
  symbol      text        NOT NULL,
  event_type  text        NOT NULL,
  epoch       integer     NOT NULL DEFAULT 0 CHECK (epoch BETWEEN 0 AND 1023),
  from_id     bigint,
  to_id       bigint,
  from_time   timestamptz,
  to_time     timestamptz,
  cause       text        NOT NULL,
  status      text        NOT NULL CHECK (status IN ('open', 'filled', 'unrecoverable')),
  reason      text,
  detected_at timestamptz NOT NULL,
  updated_at  timestamptz NOT NULL,
  closed_at   timestamptz
);
CREATE INDEX gaps_by_symbol ON gaps (symbol, event_type, from_id);

-- Messages that could not be stored, by their position in Kafka. A broker that has lost the end of a
-- partition writes other messages at the same offsets, under the same topic id. Then the position does
-- not tell two dead letters apart, but their bytes do. A redelivered message has the same bytes.
CREATE TABLE dead_letters (
  topic           text        NOT NULL,
  topic_id        uuid        NOT NULL,
  partition       integer     NOT NULL,
  kafka_offset    bigint      NOT NULL,
  origin          text        NOT NULL CHECK (origin IN ('ingestion', 'consumer')),
  reason          text        NOT NULL,
  key             bytea,
  payload         bytea,
  headers         jsonb,
  first_failed_at timestamptz,
  failed_at       timestamptz NOT NULL,
  attempts        integer     NOT NULL DEFAULT 1,
  resolved_at     timestamptz,
  digest          bytea       NOT NULL GENERATED ALWAYS AS (sha256(coalesce(sha256(key), '') || coalesce(sha256(payload), '\x00'))) STORED,
  PRIMARY KEY (topic, topic_id, partition, kafka_offset, digest)
);
COMMENT ON COLUMN dead_letters.headers IS 'The message''s original headers, as [[name, value], ...]; null if they were not kept.';
COMMENT ON COLUMN dead_letters.failed_at IS 'Time of the last failure.';
COMMENT ON COLUMN dead_letters.first_failed_at IS 'Time of the first failure, if a retry has failed since; else null.';
COMMENT ON COLUMN dead_letters.attempts IS 'Number of failures.';
COMMENT ON COLUMN dead_letters.digest IS 'Digest of key and payload: one offset may have had two messages, one after the other.';
CREATE INDEX dead_letters_unresolved ON dead_letters (topic, topic_id, partition, kafka_offset, digest) WHERE resolved_at IS NULL;

-- The offset at which to resume each partition, written in the transaction that stored the messages
-- before it. leader_epoch: the epoch of the leader that appended the message before next_offset; -1
-- if unknown.
CREATE TABLE consumer_offsets (
  topic       text        NOT NULL,
  topic_id    uuid        NOT NULL,
  partition   integer     NOT NULL,
  next_offset bigint      NOT NULL,
  leader_epoch integer    NOT NULL DEFAULT -1,
  updated_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (topic, partition)
);

-- RETENTION_ARCHIVED_ONLY drops days when the archive has the same rows.
-- What was dropped, so that rows of the same day that are stored later can be compared together with
-- them: the archive has both.
CREATE TABLE dropped_days (
  table_name text    NOT NULL,
  day        date    NOT NULL,
  symbol     text    NOT NULL,
  rows       bigint  NOT NULL,
  hash       numeric NOT NULL,
  dropped_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (table_name, day, symbol)
);
COMMENT ON TABLE dropped_days IS 'Rows that RETENTION_ARCHIVED_ONLY has dropped, by table of the archive, UTC day and symbol.';
COMMENT ON COLUMN dropped_days.hash IS 'Sum of the hashes of these rows, as in the archive.';
