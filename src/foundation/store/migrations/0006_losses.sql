-- A broker that has lost the end of a partition writes other messages at the same offsets, under
-- the same topic id. Then the position does not tell two dead letters apart, but their bytes do. A
-- redelivered message has the same bytes.
ALTER TABLE dead_letters ADD COLUMN digest bytea NOT NULL
  GENERATED ALWAYS AS (sha256(coalesce(sha256(key), '') || coalesce(sha256(payload), '\x00'))) STORED;
COMMENT ON COLUMN dead_letters.digest IS 'Digest of key and payload: one offset may have had two messages, one after the other.';
ALTER TABLE dead_letters DROP CONSTRAINT dead_letters_pkey;
ALTER TABLE dead_letters ADD PRIMARY KEY (topic, topic_id, partition, kafka_offset, digest);
DROP INDEX dead_letters_unresolved;
CREATE INDEX dead_letters_unresolved ON dead_letters (topic, topic_id, partition, kafka_offset, digest) WHERE resolved_at IS NULL;
