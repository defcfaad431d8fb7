/** SQL that puts an announcement of ingestion into `meta`. */
export function recordingSql(at: string, fields: object = {}): string {
  const recording = {
    instance: 'one',
    at: Date.parse(at),
    source: 'binance',
    time_unit: 'microsecond',
    topics: { trades: 't', bookTicker: 'b', gaps: 'g' },
    shard: '0/1',
    event_types: ['trade', 'aggTrade', 'bookTicker'],
    symbols: ['BTCUSDT', 'ETHUSDT'],
    ...fields,
  }
  return `INSERT INTO meta (key, value) VALUES ('recording:one ${recording.at}', '${JSON.stringify(recording)}')`
}
