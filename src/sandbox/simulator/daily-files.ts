import { createHash } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describeError, TapelineError } from '../../foundation/runtime/errors.ts'
import { makeFolder } from '../../foundation/runtime/folders.ts'
import { multiply } from './market/decimals.ts'
import { openMarket, type SymbolMarket } from './market/market.ts'
import type { TradeEvent } from './market/market-event.ts'
import { blockAt, eventsBefore, type MarketIdentity } from './market/market-plan.ts'
import { TRADE_SERIES } from './market/market-series.ts'
import { microsecondsOf } from './server/time-units.ts'
import { zipOf } from './zip-file.ts'

/*
 * The daily files of the simulated exchange, in the format of Binance: github.com/binance/binance-public-data.
 * They have what streams and REST have, with times in microseconds.
 */

/** The part of a file's name for each type. Block trades have no files. */
export const DAILY_FILE_KINDS = { trade: 'trades', aggTrade: 'aggTrades' } as const

export type DailyFileType = keyof typeof DAILY_FILE_KINDS

const DAY_MS = 86_400_000

/**
 * Writes the files of one UTC day of every symbol, with their checksums.
 *
 * @param dayMs start of the day, milliseconds since the Unix epoch
 * @param nowMs events that are sent later are not in the files yet
 * @returns the paths of the zip files; a day without events has none
 * @throws TapelineError `ENVIRONMENT` if the folder cannot be written
 */
export async function writeDailyFiles(
  identity: MarketIdentity,
  dayMs: number,
  nowMs: number,
  folder: string,
): Promise<string[]> {
  const paths: string[] = []
  for (const [symbol, market] of openMarket(identity)) {
    for (const type of ['trade', 'aggTrade'] as const) {
      const path = await writeDailyFile(folder, symbol, type, dayMs, eventsOf(market, type, dayMs, nowMs))
      if (path !== null) paths.push(path)
    }
  }
  return paths
}

/** Writes one file with its checksum. @returns null if there are no events */
export async function writeDailyFile(
  folder: string,
  symbol: string,
  type: DailyFileType,
  dayMs: number,
  events: Iterable<TradeEvent>,
): Promise<string | null> {
  const name = `${symbol}-${DAILY_FILE_KINDS[type]}-${new Date(dayMs).toISOString().slice(0, 10)}`
  let isEmpty = true
  function* lines() {
    for (const event of events) {
      isEmpty = false
      yield lineOf(event)
    }
  }
  const zip = await zipOf(`${name}.csv`, lines())
  if (isEmpty) return null
  const path = join(folder, `${name}.zip`)
  const sum = createHash('sha256').update(zip).digest('hex')
  try {
    makeFolder(folder)
    writeFileSync(path, zip)
    writeFileSync(`${path}.CHECKSUM`, `${sum}  ${name}.zip\n`)
  } catch (error) {
    throw new TapelineError('ENVIRONMENT', `${path} cannot be written: ${describeError(error)}`, {
      fix: 'Name another folder.',
      cause: error,
    })
  }
  return path
}

function* eventsOf(
  market: SymbolMarket,
  type: DailyFileType,
  dayMs: number,
  nowMs: number,
): Iterable<TradeEvent> {
  const { plan, ids, block } = market
  const first = Math.max(0, blockAt(dayMs))
  const end = Math.min(blockAt(dayMs + DAY_MS), blockAt(nowMs) + 1)
  for (let number = first; number < end; number++) {
    const events = block(number)
    const count = eventsBefore(plan, type, number + 1) - eventsBefore(plan, type, number)
    for (let index = 0; index < count; index++) {
      const event = TRADE_SERIES[type].event(events, index, ids)
      if (event.eventTime > nowMs) return
      yield event
    }
  }
}

function lineOf({
  id,
  price,
  quantity,
  tradeTime,
  isBuyerMaker,
  firstTradeId,
  lastTradeId,
}: TradeEvent): string {
  const between = firstTradeId === undefined ? multiply(price, quantity) : `${firstTradeId},${lastTradeId}`
  const flag = isBuyerMaker ? 'True' : 'False'
  return `${id},${price},${quantity},${between},${microsecondsOf(tradeTime)},${flag},True\n`
}
