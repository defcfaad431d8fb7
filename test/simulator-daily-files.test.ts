import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { writeDailyFiles } from '../src/sandbox/simulator/daily-files.ts'
import { startSimulatedExchange } from '../src/sandbox/simulator/simulated-exchange.ts'
import { dailyFiles } from '../src/tools/history/daily-file.ts'
import { DailyRows } from '../src/tools/history/daily-rows.ts'
import { startTapeline } from './support/processes.ts'

const folder = mkdtempSync(join(tmpdir(), 'tapeline-daily-'))
after(() => rmSync(folder, { recursive: true }))

const DAY_MS = 86_400_000

test('the simulator writes the files of a whole day, which REST agrees with', async () => {
  const market = { symbols: ['BTCUSDT', 'BNBUSDT'], messagesPerSecond: 1, seed: 7 }
  const args = ['--symbols', 'BTCUSDT,BNBUSDT', '--rate', '1', '--seed', '7', '--day', 'yesterday']
  await using command = startTapeline(['simulate', '--daily-files', folder, ...args])
  await command.assertExit(0)
  const yesterdayMs = (Math.floor(Date.now() / DAY_MS) - 1) * DAY_MS
  const exchange = await startSimulatedExchange({ ...market, historyMinutes: 2 * 24 * 60 })
  try {
    const files = await dailyFiles([folder])
    assert.equal(files.length, 4)
    for (const file of files) {
      const rows = new DailyRows(file)
      const own: unknown[] = []
      while (await rows.fill())
        while (rows.next()) {
          const { id, price, quantity, tradeTimeUs, isBuyerMaker } = rows.fields
          own.push([id, price, quantity, Math.floor(tradeTimeUs / 1000), isBuyerMaker])
        }
      assert.deepEqual([rows.defects, rows.missing], [[], []], file.name)
      const [first, last] = [rows.first, rows.last]
      assert.ok(first !== null && last !== null && own.length > 1000)
      const events = exchange.history.events(file.type, file.symbol, first.id - 1, last.id + 1)
      const outside = [events[0], events.at(-1)].map((event) => Math.floor((event?.tradeTime ?? 0) / DAY_MS))
      assert.deepEqual(outside, [yesterdayMs / DAY_MS - 1, yesterdayMs / DAY_MS + 1], 'it has the whole day')
      assert.deepEqual(
        own,
        events.slice(1, -1).map((one) => [one.id, one.price, one.quantity, one.tradeTime, one.isBuyerMaker]),
      )
      const [sum, name] = readFileSync(`${file.path}.CHECKSUM`, 'utf8').trim().split(/\s+/)
      const hash = createHash('sha256').update(readFileSync(file.path)).digest('hex')
      assert.deepEqual([sum, name], [hash, file.name])
    }
  } finally {
    await exchange.close()
  }
})

test('a day that is not over has what was sent until now, and a day before the market has no file', async () => {
  const identity = { symbols: ['BTCUSDT'], messagesPerSecond: 30, seed: 1, skew: 1 }
  const dayMs = Date.UTC(2026, 0, 2)
  const own = mkdtempSync(join(folder, 'partial-'))
  await writeDailyFiles(identity, dayMs, dayMs + 90_500, own)
  assert.equal(readdirSync(own).length, 4)
  const [file] = await dailyFiles([own])
  assert.ok(file !== undefined)
  const rows = new DailyRows(file)
  while (await rows.fill()) while (rows.next());
  assert.ok(rows.last !== null && rows.last.timeUs <= (dayMs + 90_500) * 1000 + 999)
  assert.ok(rows.last.timeUs > (dayMs + 80_000) * 1000)
  assert.deepEqual(await writeDailyFiles(identity, Date.UTC(2025, 11, 31), dayMs, own), [])
})
