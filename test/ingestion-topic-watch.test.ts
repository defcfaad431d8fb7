import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createLogger } from '../src/foundation/telemetry/log.ts'
import { TopicWatch } from '../src/ingestion/topic-watch.ts'

test('C8 a broker that still reports the id of a deleted topic does not restore that topic', async () => {
  const ids = ['old', 'old', 'new', 'old', 'new', 'newest']
  const topicsOf = (id = '') => new Map([['trades', { id, partitions: 1 }]])
  const unused = () => assert.fail()
  const kafka = {
    fetcher: () => ({
      connect: async () => topicsOf(ids.shift()),
      leaderOf: unused,
      offsetRanges: unused,
      fetch: unused,
      read: unused,
      close: async () => {},
    }),
  }
  const recreated: string[] = []
  const events = {
    onRecreated: () => recreated.push(watch.idOf('trades')),
    onFatal: (error: Error) => assert.fail(error),
  }
  const watch: TopicWatch = new TopicWatch(kafka, topicsOf('old'), events, createLogger('test', 'silent'))
  const seen: string[] = []
  while (ids.length > 0) {
    assert.equal(await watch.check(), true)
    seen.push(watch.idOf('trades'))
  }
  assert.deepEqual(recreated, ['new', 'newest'])
  assert.deepEqual(seen, ['old', 'old', 'new', 'new', 'new', 'newest'])
})
