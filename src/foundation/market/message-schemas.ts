import { z } from 'zod'
import { decimalField, idField, symbolField, timeMsField, timeUsField } from './field-schemas.ts'
import { GAP } from './gap.ts'
import { INVALIDATED } from './payload.ts'
import { RECORDING } from './recording.ts'
import type { TimeUnit } from './time-unit.ts'

/*
 * The messages of the topics, as readers may rely on them; docs/schemas and docs/asyncapi.yaml are
 * generated from this. Other fields may be present: the exchange adds some now and then, and they
 * are passed on.
 */

/** Appended by ingestion when the frame was received. */
const RECEIPT = {
  ingestion_timestamp: timeMsField.describe('Receipt, milliseconds since the Unix epoch.'),
  ingestion_timestamp_us: timeUsField.describe(
    'Receipt, microseconds since the Unix epoch; strictly increasing over all streams of a process, except when its clock is set, which the ledger records with the cause `clock`.',
  ),
}

const ofTrades = (unit: TimeUnit) => ({
  s: symbolField.describe('Symbol.'),
  p: decimalField.describe('Price.'),
  q: decimalField.describe('Quantity.'),
  T: timeField(unit).describe(`Trade time, ${unit}s since the Unix epoch.`),
  m: z.boolean().describe('Whether the buyer was the maker: the taker sold.'),
  ...RECEIPT,
})

const timeField = (unit: TimeUnit) => (unit === 'microsecond' ? timeUsField : timeMsField)

const BACKFILL = z.literal('backfill').describe('Backfilled from REST.')

/** With the event time of a stream, which REST does not give. */
const fromStream = (unit: TimeUnit) => ({
  E: timeField(unit).describe(`Event time, ${unit}s since the Unix epoch.`),
  source: BACKFILL.optional(),
})
const FROM_REST = { E: z.never().optional(), source: BACKFILL }

const TILES = {
  f: idField.describe('First trade id.'),
  l: idField.describe('Last trade id, not below the first.'),
}
const INVALID = {
  f: z.literal(INVALIDATED).describe('The exchange has invalidated this row.'),
  l: z.literal(INVALIDATED),
}

function trade(unit: TimeUnit) {
  const fields = { e: z.literal('trade'), t: idField.describe('Trade id.'), ...ofTrades(unit) }
  return z.union([
    z.looseObject({ ...fields, ...fromStream(unit) }),
    z.looseObject({ ...fields, ...FROM_REST }),
  ])
}

function aggTrade(unit: TimeUnit) {
  const fields = {
    e: z.literal('aggTrade'),
    a: idField.describe('Aggregate trade id.'),
    ...ofTrades(unit),
  }
  return z.union(
    [fromStream(unit), FROM_REST].flatMap((from) =>
      [TILES, INVALID].map((trades) => z.looseObject({ ...fields, ...from, ...trades })),
    ),
  )
}

/** Schemas by the value of the `schema` header. */
export const MESSAGES = {
  'trade/2': trade('microsecond'),
  'trade/1': trade('millisecond'),
  'aggTrade/2': aggTrade('microsecond'),
  'aggTrade/1': aggTrade('millisecond'),
  'bookTicker/1': z.looseObject({
    u: idField.describe('Update id; increasing, not contiguous.'),
    s: symbolField.describe('Symbol.'),
    b: decimalField.describe('Best bid price.'),
    B: decimalField.describe('Best bid quantity.'),
    a: decimalField.describe('Best ask price.'),
    A: decimalField.describe('Best ask quantity.'),
    ...RECEIPT,
  }),
  'gap/1': GAP,
  'recording/1': RECORDING,
} as const
