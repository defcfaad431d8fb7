import { type CopiedPlace, CopiedRows } from '../../foundation/archive/copied-rows.ts'
import { type DuckDb, quoted } from '../../foundation/archive/duckdb.ts'
import { isTickType, isTradeType, type TickType } from '../../foundation/market/event.ts'
import { isoOfUs } from '../../foundation/market/time-unit.ts'
import { TapelineError } from '../../foundation/runtime/errors.ts'
import { readFact } from '../../foundation/store/meta.ts'
import type { TextReader } from '../../foundation/store/text-reader.ts'
import { COLUMNS, ID_COLUMN, TIME_COLUMN } from './columns.ts'
import type { Day } from './day.ts'
import type { DayStore } from './day-store.ts'

/** Rows of one statement: the embedded database keeps its answer in memory. */
const ROWS_AT_ONCE = 250_000

const COPIED = 'copied_rows'

/** The tables of the database, whose rows are copied into the engine, one type and day at a time. */
export function tableStore(reader: TextReader, duckDb: DuckDb): DayStore {
  const { typed: connection } = reader
  return {
    connection,
    duckDb,
    storedUntil: () => 0,
    depthRows: null,
    async facts(day) {
      const { rows } = await connection.query<{ now: Date }>('SELECT now() AS now')
      const takenAt = rows[0]?.now ?? new Date()
      return {
        takenAt,
        dayIsOver: takenAt.getTime() >= day.toMs,
        source: await readFact(connection, 'source'),
        timeUnit: await readFact(connection, 'time_unit'),
      }
    },
    async rowsOf(type, symbol, day, onProgress) {
      if (!isTickType(type))
        throw new TapelineError('INPUT', `${type} cannot be exported from the tables`, {
          fix: 'Export it from the archive: add --archive.',
        })
      await duckDb.run(`DROP TABLE IF EXISTS ${COPIED}`)
      const table = await duckDb.createTable(COPIED, COLUMNS[type])
      const copied = new CopiedRows(COLUMNS[type], ID_COLUMN[type], table.add)
      try {
        for (let before = 0, isOver = false; !isOver; isOver = copied.rows - before < ROWS_AT_ONCE) {
          before = copied.rows
          for await (const bytes of reader.copyOut(copyStatement(type, symbol, day, copied.last))) {
            copied.add(bytes)
            onProgress(type, copied.rows)
          }
          copied.restart()
        }
        copied.flush()
      } catch (error) {
        if (!(error instanceof RangeError)) throw error
        throw new TapelineError('INPUT', `A ${type} of ${symbol} cannot be exported: ${error.message}`, {
          fix: 'bin/tapeline verify names the rows with values that no event has.',
          cause: error,
        })
      } finally {
        await table.finish()
      }
      return { from: COPIED, isSorted: true }
    },
  }
}

/** @param after only rows after this one */
function copyStatement(type: TickType, symbol: string, day: Day, after: CopiedPlace | null): string {
  const [time, id] = [TIME_COLUMN[type], ID_COLUMN[type]]
  const at = (text: string) => `timestamptz ${quoted(text)}`
  const [from, to] = day.bounds
  const last = after === null ? null : at(isoOfUs(Number(after.timeUs)))
  const [table, which] = isTradeType(type)
    ? ['trades', ` AND event_type = ${quoted(type)}`]
    : ['book_ticker', '']
  // Chunks are excluded by the time alone, not by the pair.
  const place =
    after === null
      ? `${time} >= ${at(from)}`
      : `${time} >= ${last} AND (${time}, ${id}) > (${last}, ${after.id})`
  return `COPY (SELECT ${COLUMNS[type].map(({ name }) => name).join(', ')} FROM ${table}
    WHERE symbol = ${quoted(symbol)}${which} AND ${place} AND ${time} < ${at(to)}
    ORDER BY ${time}, ${id} LIMIT ${ROWS_AT_ONCE}) TO STDOUT (FORMAT binary)`
}
