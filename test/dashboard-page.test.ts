import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import type { Browser, Page } from 'playwright-core'
import { totalLag } from '../src/foundation/telemetry/status.ts'
import { freePort } from '../src/sandbox/processes/free-ports.ts'
import { priceText, spreadText } from '../src/tools/dashboard/page/format.ts'
import { launchBrowser, needsBrowser } from './support/browser.ts'
import type { ConsumerParts } from './support/consumer-parts.ts'
import { ended } from './support/ended.ts'
import { createPipelineParts } from './support/pipeline-parts.ts'
import { startTapeline } from './support/processes.ts'
import { startArchiveProcess, startConsumerProcess, untilCaughtUp } from './support/services.ts'
import { until } from './support/wait-for.ts'

const SYMBOLS = ['BTCUSDT', 'ETHUSDT', 'BNBUSDT']
const VIEWS = [
  { viewport: { width: 1400, height: 900 }, colorScheme: 'light' },
  { viewport: { width: 1400, height: 900 }, colorScheme: 'dark' },
  { viewport: { width: 390, height: 844 }, colorScheme: 'light' },
  { viewport: { width: 390, height: 844 }, colorScheme: 'dark' },
] as const

test(
  'the dashboard shows stored data, each fault and its recovery, and reconnects automatically',
  needsBrowser(),
  async () => {
    await using parts = await createPipelineParts({ symbols: SYMBOLS, messagesPerSecond: 200, skew: 1 })
    const { exchange } = parts
    const port = await freePort()
    const url = `http://127.0.0.1:${port}`
    await using browser = ended(await launchBrowser(), 'close')
    await using consumer = await startConsumerProcess(parts.env)
    await consumer.ready()
    await using ingestion = await parts.ingest()
    await ingestion.ready()
    const startDashboard = async () => {
      const dashboard = startTapeline(['dashboard'], {
        env: {
          DATABASE_URL: parts.databaseUrl,
          INGEST_URLS: ingestion.url,
          CONSUMER_URLS: consumer.url,
          DASHBOARD_PORT: String(port),
        },
      })
      await dashboard.waitForLine(/The dashboard is at/)
      return dashboard
    }
    await using dashboard = await startDashboard()
    await assertFits(browser, url)

    const page = await browser.newPage()
    const problems = problemsOf(page, url)
    await page.goto(url)
    const text = async (selector: string) => (await page.locator(selector).allInnerTexts()).join('\n')
    const says = (selector: string, pattern: RegExp) =>
      until(selector, async () => {
        assert.match(await text(selector), pattern)
        return true
      })
    await says('#state', /All is well/)

    // A gap that cannot be filled for a while.
    const rest = exchange.faults.add({ kind: 'restError', status: 500 })
    exchange.faults.add({ kind: 'drop', stream: 'btcusdt@trade', count: 25 })
    await says('#state', /1 gap cannot be filled now: HTTP 500/)
    await says('#gaps', /BTCUSDT trade \d+–\d+ \(25\)\s+opened: missed; being filled/)
    rest.end()
    await says('#gaps', /BTCUSDT trade \d+–\d+ \(25\)\s+opened: missed; filled after/)
    await says('#incidents', /BTCUSDT trade \d+–\d+: filled[\s\S]*BTCUSDT trade \d+–\d+: a gap \(missed\)/)
    await says('#state', /All is well/)

    // An unparsable frame.
    exchange.faults.add({ kind: 'garbage', form: 'text', count: 1 })
    await says('#letters', /not JSON/)
    await says('#letter-count', /1 unresolved/)
    await says('#incidents', /a dead letter, .*: not JSON/)

    // A stopped service is reported, and the database's figures stay visible.
    await ingestion.stop()
    await says('#state', /ingestion: does not answer/)
    await untilCaughtUp(consumer)
    const assertTrue = async () => {
      const { counters, partitions } = await consumer.status()
      const count = (value: number | null) => new Intl.NumberFormat('en-US').format(value ?? Number.NaN)
      await says('#totals', new RegExp(`Rows since start\\s+${count(counters.inserted)}\\s`))
      await until('the prices of the database', async () => {
        assert.deepEqual(await cells(page, 'symbols'), await storedPrices(parts))
        return true
      })
      assert.deepEqual(
        await cells(page, 'partitions'),
        partitions
          .toSorted((a, b) => a.topic.localeCompare(b.topic) || a.partition - b.partition)
          .map((one) => [`${one.topic} ${one.partition}`, count(one.nextOffset), count(one.endOffset), '0']),
      )
      const { rows } = await parts.database.query<{ filled: number }>(
        "SELECT count(*) FILTER (WHERE status = 'filled')::int AS filled FROM gaps",
      )
      await says('#gap-counts', new RegExp(`${rows[0]?.filled} filled`))
    }
    await assertTrue()
    assert.deepEqual(problems(), [])

    // The dashboard's server is killed and restarted: the page reconnects.
    await dashboard.kill()
    await says('#state', /The dashboard does not answer/)
    problems()
    await using again = await startDashboard()
    await says('#state', /ingestion: does not answer/)
    await assertTrue()
    assert.deepEqual(
      problems().filter((one) => !/ERR_CONNECTION|ERR_INCOMPLETE/.test(one)),
      [],
    )
    again.signal('SIGTERM')
    await again.assertExit(0)
    await consumer.stop()
  },
)

test(
  'without a database the dashboard shows the archive, what is not in files yet, and its problem',
  needsBrowser(),
  async () => {
    await using parts = await createPipelineParts({ symbols: SYMBOLS, messagesPerSecond: 200 })
    const folder = await mkdtemp(join(tmpdir(), 'tapeline-archive-'))
    const port = await freePort()
    const url = `http://127.0.0.1:${port}`
    await using browser = ended(await launchBrowser(), 'close')
    await using ingestion = await parts.ingest()
    await ingestion.ready()
    await using archive = await startArchiveProcess({
      ...parts.env,
      ARCHIVE_URL: join(folder, 'archive'),
      ARCHIVE_FLUSH_INTERVAL_MS: '500',
      KAFKA_ARCHIVE_GROUP_ID: `${parts.env.KAFKA_GROUP_ID}-archive`,
    })
    await using dashboard = startTapeline(['dashboard'], {
      env: {
        DATABASE_URL: 'none',
        INGEST_URLS: ingestion.url,
        ARCHIVE_SERVICE_URLS: archive.url,
        DASHBOARD_PORT: String(port),
      },
    })
    await dashboard.waitForLine(/The dashboard is at/)
    for (const view of VIEWS) {
      const page = await browser.newPage(view)
      const problems = problemsOf(page, url)
      await page.goto(url)
      await page.locator('#lag canvas').waitFor()
      const overflow = await page.evaluate('document.documentElement.scrollWidth - innerWidth')
      assert.equal(overflow, 0, `${view.viewport.width} px: ${overflow} px too wide`)
      assert.deepEqual(problems(), [])
      await page.close()
    }
    const page = await browser.newPage()
    await page.goto(url)
    const says = (selector: string, pattern: RegExp) =>
      until(selector, async () => {
        assert.match((await page.locator(selector).allInnerTexts()).join(), pattern)
        return true
      })
    await says('#state', /All is well/)
    await says('#no-database', /There is no database/)
    for (const hidden of ['#market', '#gaps', '#letters', '#row'])
      assert.equal(await page.locator(hidden).isVisible(), false, hidden)
    await says('#archive-totals', /Newest published day\s+none yet/)
    await ingestion.stop()
    await archive.until(
      'everything in files',
      ({ pending, partitions }) => pending === 0 && totalLag(partitions) === 0,
    )
    const { rows } = await archive.status()
    const count = Object.values(rows).reduce((sum, one) => sum + one, 0)
    const shown = new Intl.NumberFormat('en-US').format(count)
    await says(
      '#archive-totals',
      new RegExp(`Rows in files since start\\s+${shown}\\s[\\s\\S]*Not in files yet\\s+0\\s`),
    )
    await archive.stop()
    await says('#state', /archive: does not answer/)
    await rm(folder, { recursive: true })
  },
)

/** On desktop and phone, light and dark: no horizontal scrolling, no error, no external request. */
async function assertFits(browser: Browser, url: string): Promise<void> {
  for (const view of VIEWS) {
    const page = await browser.newPage(view)
    const problems = problemsOf(page, url)
    await page.goto(url)
    await page.locator('#price canvas').waitFor()
    await page.locator('#symbols tbody tr').first().waitFor()
    const overflow = await page.evaluate('document.documentElement.scrollWidth - innerWidth')
    assert.equal(overflow, 0, `${view.viewport.width} px: ${overflow} px too wide`)
    // By keyboard alone: the link to the data, then the symbols.
    for (let i = 0; i < 3; i++) await page.keyboard.press('Tab')
    await page.keyboard.press('Enter')
    await page.locator('button[aria-pressed="true"]', { hasText: 'ETHUSDT' }).waitFor()
    assert.deepEqual(problems(), [])
    await page.close()
  }
}

/** @returns console errors and requests to other hosts since the last call */
function problemsOf(page: Page, url: string): () => string[] {
  const problems: string[] = []
  page.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning') problems.push(message.text())
  })
  page.on('pageerror', (error) => problems.push(error.message))
  page.on('request', (request) => {
    if (!request.url().startsWith(url)) problems.push(`asked for ${request.url()}`)
  })
  return () => problems.splice(0)
}

async function cells(page: Page, table: string): Promise<string[][]> {
  const rows = await page.locator(`#${table} tbody tr`).all()
  return Promise.all(rows.map((row) => row.locator('td').allInnerTexts()))
}

/** The rows of the page's first table, from the database. */
async function storedPrices({ database }: ConsumerParts): Promise<string[][]> {
  const { rows } = await database.query<{ symbol: string; price: string; bid: string; ask: string }>(
    `SELECT s AS symbol,
       (SELECT price::text FROM raw_trades WHERE symbol = s ORDER BY trade_id DESC LIMIT 1) AS price,
       (SELECT bid_price::text FROM book_ticker WHERE symbol = s ORDER BY ingestion_timestamp DESC LIMIT 1) AS bid,
       (SELECT ask_price::text FROM book_ticker WHERE symbol = s ORDER BY ingestion_timestamp DESC LIMIT 1) AS ask
     FROM unnest($1::text[]) AS s`,
    [SYMBOLS],
  )
  return rows.map(({ symbol, price, bid, ask }) => [
    symbol,
    priceText(price),
    priceText(bid),
    priceText(ask),
    spreadText(bid, ask),
  ])
}
