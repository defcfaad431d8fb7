import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createLogger } from '../src/foundation/telemetry/log.ts'
import { freePort } from '../src/sandbox/processes/free-ports.ts'
import { Books } from '../src/tools/dashboard/books.ts'
import { startDashboard } from '../src/tools/dashboard/server.ts'
import { diffOf, type Pair, snapshotOf } from './support/book-rows.ts'
import { launchBrowser, needsBrowser } from './support/browser.ts'
import { openTestDatabase } from './support/database.ts'
import { ended } from './support/ended.ts'
import { insertDepth } from './support/stored-depth.ts'
import { until } from './support/wait-for.ts'

const BIDS: Pair[] = Array.from({ length: 40 }, (_, i) => [String(100 - i / 4), String(1 + (i % 5))])
const ASKS: Pair[] = Array.from({ length: 30 }, (_, i) => [String(100.5 + i / 4), String(1 + (i % 7))])
const SNAPSHOT = snapshotOf(5, BIDS, ASKS, { limit: 40 })
const FIRST = [diffOf(1, 5, [], []), diffOf(6, 9, [['100.25', '0.5']], [])]

test('the newest book is read for all pages at once, then only its changes, and a hole is named', async () => {
  await using open = await openTestDatabase('migrated')
  const { database } = open
  let nowMs = 0
  const books = new Books(database, () => nowMs)
  assert.deepEqual(await books.read('BTCUSDT'), { kind: 'none' })
  await insertDepth(database, FIRST, [SNAPSHOT])
  assert.deepEqual(await books.read('BTCUSDT'), { kind: 'none' }, 'the answer of this second')
  nowMs = 2000
  const first = await books.read('BTCUSDT')
  assert.ok(first.kind === 'book')
  assert.deepEqual([first.updateId, first.anchorUpdateId, first.atMs], [9, 5, 9])
  assert.deepEqual(first.bids.horizon, { price: '90.25', basisPoints: 1008.72 })
  assert.equal(first.asks.horizon, null)
  assert.deepEqual(first.bids.levels.slice(0, 3), [
    [100.25, 0.5],
    [100, 1.5],
    [99.75, 3.5],
  ])

  // The rows before are not needed any more.
  await database.query('DELETE FROM depth_updates')
  await insertDepth(database, [diffOf(10, 12, [['100', '9']], []), diffOf(13, 14, [], [['100.5', '0']])], [])
  nowMs = 4000
  const second = await books.read('BTCUSDT')
  assert.ok(second.kind === 'book')
  assert.deepEqual([second.updateId, second.anchorUpdateId, second.bids.levels[1]], [14, 5, [100, 9.5]])
  assert.deepEqual([second.asks.levels[0], second.bids.horizon?.price], [[100.75, 2], '90.25'])

  await insertDepth(database, [diffOf(21, 30, [], [])], [])
  nowMs = 6000
  const refused = await books.read('BTCUSDT')
  assert.ok(refused.kind === 'refused')
  assert.match(refused.text, /The update ids 15 to 20 are missing/)
  await insertDepth(database, [], [snapshotOf(25, BIDS, ASKS, { limit: 40 })])
  nowMs = 8000
  const again = await books.read('BTCUSDT')
  assert.deepEqual([again.kind, again.kind === 'book' && again.anchorUpdateId], ['book', 25])
  assert.equal(again.kind === 'book' && again.isCrossed, false)
  await insertDepth(database, [diffOf(31, 40, [['101', '1']], [])], [])
  nowMs = 10_000
  const crossed = await books.read('BTCUSDT')
  assert.equal(crossed.kind === 'book' && crossed.isCrossed, true)
})

test(
  'the page draws the book of the chosen symbol with its facts, on desktop and phone',
  needsBrowser(),
  async () => {
    await using open = await openTestDatabase('migrated')
    const { database, url: databaseUrl } = open
    await insertDepth(database, FIRST, [SNAPSHOT])
    const port = await freePort()
    const config = { host: '127.0.0.1', port, databaseUrl, symbols: ['BTCUSDT', 'ETHUSDT'] }
    const urls = { ingestion: [], consumer: [], archive: [] }
    await using stack = new AsyncDisposableStack()
    const dashboard = await startDashboard({ ...config, urls }, createLogger('dashboard', 'silent'))
    stack.defer(() => dashboard.stop(AbortSignal.timeout(10_000)))
    await using browser = ended(await launchBrowser(), 'close')
    for (const width of [1400, 390]) {
      const page = await browser.newPage({ viewport: { width, height: 900 } })
      const errors: string[] = []
      page.on('pageerror', ({ message }) => errors.push(message))
      await page.goto(dashboard.url)
      await page.locator('#depth canvas').waitFor()
      const facts = page.locator('#book-facts')
      assert.equal(
        await facts.textContent(),
        'Update id 9 at 00:00:00 UTC, from the snapshot 5, 4 ms old. ' +
          'Bids are exact down to 90.25 (1008.72 basis points), asks complete.',
      )
      assert.equal(await page.evaluate('document.documentElement.scrollWidth - innerWidth'), 0, `${width} px`)
      const shots = process.env['TAPELINE_TEST_SHOTS']
      if (shots !== undefined) await page.screenshot({ path: `${shots}-${width}.png`, fullPage: true })
      await page.locator('button', { hasText: 'ETHUSDT' }).click()
      await page.locator('#book').waitFor({ state: 'hidden' })
      if (width === 390) {
        await insertDepth(database, [diffOf(21, 30, [], [])], [])
        await page.locator('button', { hasText: 'BTCUSDT' }).click()
        await until('the refusal', async () =>
          /update ids 10 to 20 are missing/.test((await facts.textContent()) ?? ''),
        )
        assert.equal(await page.locator('#depth').isVisible(), false)
      }
      assert.deepEqual(errors, [])
      await page.close()
    }
  },
)
