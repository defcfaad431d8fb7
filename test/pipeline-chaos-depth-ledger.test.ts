import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { checkDepth } from '../chaos/depth-ledger.ts'
import { isoOfUs } from '../src/foundation/market/time-unit.ts'
import type { Exchange } from '../src/sandbox/simulator/exchange-server.ts'
import { diffOf, type Pair, snapshotOf } from './support/book-rows.ts'
import { type OpenDatabase, openTestDatabase } from './support/database.ts'
import { anchorSql, diffSql } from './support/depth-sql.ts'

const SYMBOL = 'BTCUSDT'
/** Event times follow from update ids: 1000 is a second after the epoch. */
const FIRST = 1000
const BIDS: Pair[] = [['100', '1']]
const ASKS: Pair[] = [['101', '1']]

let server: OpenDatabase

before(async () => {
  server = await openTestDatabase('migrated')
})

after(() => server[Symbol.asyncDispose]())

interface Recording {
  readonly missing?: readonly number[]
  /** The first and last update id of a ledger row. */
  readonly ledger?: ReadonlyArray<readonly [from: number, to: number]>
  readonly snapshots?: readonly number[]
  readonly faultMs?: number
  readonly struck?: ReturnType<Exchange['faults']['struck']>['frames']
}

/** Stores ten diffs of a hundred updates each, and checks them. */
async function check({
  missing = [],
  ledger = [],
  snapshots = [FIRST - 1],
  faultMs,
  struck = [],
}: Recording) {
  const { database } = server
  await database.query('TRUNCATE depth_updates, depth_snapshots, gaps')
  for (let i = 0; i < 10; i++) {
    const from = FIRST + i * 100
    if (!missing.includes(i)) await database.query(diffSql(diffOf(from, from + 99, BIDS, ASKS)))
  }
  for (const id of snapshots) await database.query(anchorSql(snapshotOf(id, BIDS, ASKS)))
  for (const [from, to] of ledger)
    await database.query(
      `INSERT INTO gaps (gap_id, revision, symbol, event_type, epoch, from_id, to_id, from_time, to_time, cause, status, reason, detected_at, updated_at, closed_at)
       VALUES ('${from}', 1, '${SYMBOL}', 'depth', 0, ${from}, ${to}, '${isoOfUs(from * 1000)}', '${isoOfUs(to * 1000)}', 'jump', 'unrecoverable', 'x', now(), now(), now())`,
    )
  return await checkDepth(database, {
    exchange: {
      faults: { struck: () => ({ frames: struck, forgotten: 0 }) },
      history: { symbols: [SYMBOL] },
    },
    starts: [],
    faults: faultMs === undefined ? [] : [{ fromMs: faultMs, toMs: faultMs }],
    isClockRight: true,
  })
}

test('every update is stored or in the ledger, and a hole needs a fault', async () => {
  assert.deepEqual((await check({})).violations, [])
  const lost = { missing: [4], snapshots: [FIRST - 1, FIRST + 550] }
  assert.match(
    (await check(lost)).violations.join(),
    /updates 1400\.\.1499 are neither stored nor in the ledger/,
  )
  const listed = { ...lost, ledger: [[1400, 1499]] as const }
  assert.match((await check(listed)).violations.join(), /1400\.\.1499 were lost without a fault/)
  const explained = await check({ ...listed, faultMs: 1400 })
  assert.deepEqual([explained.violations, explained.holes, explained.lostIds], [[], 1, 100])
  assert.deepEqual(explained.snapshots, { start: 1, hole: 1 })
  const wide = await check({ ...lost, ledger: [[1400, 1510]], faultMs: 1400 })
  assert.match(wide.violations.join(), /updates 1500\.\.1510 are in the ledger as lost, but are stored/)
})

test('a dropped diff is lost, or stored from another connection', async () => {
  const frame = {
    faultId: 1,
    kind: 'drop',
    connection: 1,
    stream: 'btcusdt@depth@100ms',
    change: null,
  } as const
  const struck = [1400, 1500].map((firstId) => ({ ...frame, firstId, lastId: firstId + 99 }))
  const found = await check({ missing: [4], ledger: [[1400, 1499]], faultMs: 1400, struck })
  assert.deepEqual(found.dropped, { diffs: 2, inLedger: 1, stored: 1 })
})

test('a second snapshot without lost updates is a violation', async () => {
  const { violations } = await check({ snapshots: [FIRST - 1, FIRST + 550] })
  assert.match(violations.join(), /1 snapshots of order books were requested without a reason/)
})
