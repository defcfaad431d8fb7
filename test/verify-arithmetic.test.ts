import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import { type AuditedMarket, createAuditedMarket, deadLetterSql, gapSql } from './support/audited-market.ts'

const STATUSES = ['open', 'filled', 'unrecoverable'] as const

const range = fc
  .tuple(fc.integer({ min: 990, max: 1105 }), fc.integer({ min: 0, max: 12 }))
  .map(([from, length]) => ({ from, to: from + length }))

/** The stored ids, the ledger's ids, and the ids of dead letters. */
const world = fc.record({
  removed: fc.array(range, { maxLength: 8 }),
  gaps: fc.uniqueArray(fc.record({ range, status: fc.constantFrom(...STATUSES) }), {
    maxLength: 8,
    selector: ({ range }) => range.from,
  }),
  letters: fc.uniqueArray(fc.integer({ min: 990, max: 1105 }), { maxLength: 8 }),
})

const contains = (ranges: ReadonlyArray<{ from: number; to: number }>, id: number) =>
  ranges.some(({ from, to }) => from <= id && id <= to)

let market: AuditedMarket
before(async () => {
  market = await createAuditedMarket()
})
after(() => market[Symbol.asyncDispose]())

test('explains exactly the ids in the ledger or in dead letters, whatever is missing', async () => {
  await fc.assert(
    fc.asyncProperty(world, async ({ removed, gaps, letters }) => {
      const ids = Array.from({ length: 100 }, (_, index) => 1000 + index)
      const stored = ids.filter((id) => !contains(removed, id))
      const audit = await market.auditAfter([
        "DELETE FROM trades WHERE symbol = 'ETHUSDT'",
        ...removed.map(
          ({ from, to }) =>
            `DELETE FROM trades WHERE event_type = 'trade' AND trade_id BETWEEN ${from} AND ${to}`,
        ),
        ...gaps.map(({ range, status }) => gapSql(status, range.from, range.to)),
        ...letters.map((id, offset) => deadLetterSql(offset, `{"e":"trade","s":"BTCUSDT","t":${id}}`)),
      ])
      const [first = 0, last = -1] = [stored.at(0), stored.at(-1)]
      const missing = ids.filter((id) => id > first && id < last && !stored.includes(id))
      const ranges = (filled: boolean) =>
        gaps.filter(({ status }) => (status === 'filled') === filled).map(({ range }) => range)
      const unexplained = missing.filter((id) => !contains(ranges(false), id) && !letters.includes(id))
      const filled = unexplained.filter((id) => contains(ranges(true), id))
      const found = audit.sequences.find(({ eventType }) => eventType === 'trade')
      assert.deepEqual(
        [found?.rows ?? 0, found?.missing ?? 0, found?.unexplained ?? 0, found?.saidFilled ?? 0],
        [stored.length, missing.length, unexplained.length, filled.length],
      )
      assert.equal(audit.findings.find(({ kind }) => kind === 'missing')?.examples[0]?.from, unexplained[0])
    }),
    { numRuns: 40 },
  )
})
