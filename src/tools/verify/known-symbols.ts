import { TapelineError } from '../../foundation/runtime/errors.ts'
import type { CheckContext } from './scope.ts'

/** Index look-ups first; dead letters are read only for a symbol that nothing else knows. */
const UNKNOWN = `SELECT symbol FROM unnest($1::text[]) AS asked (symbol)
  WHERE NOT EXISTS (SELECT FROM trades WHERE trades.symbol = asked.symbol)
    AND NOT EXISTS (SELECT FROM book_ticker WHERE book_ticker.symbol = asked.symbol)
    AND NOT EXISTS (SELECT FROM gaps WHERE gaps.symbol = asked.symbol)
    AND NOT EXISTS (SELECT FROM dead_letters WHERE key = convert_to(asked.symbol, 'UTF8')
      OR position(convert_to('"s":"' || asked.symbol || '"', 'UTF8') IN payload) > 0)
  ORDER BY symbol`

/**
 * A symbol that is spelt wrongly has nothing missing.
 *
 * @throws TapelineError `INPUT` naming the symbols of the scope of which there is no row, ledger row or dead letter
 */
export async function refuseUnknownSymbols({ connection, scope }: CheckContext): Promise<void> {
  if (scope.symbols === null) return
  const { rows } = await connection.query<{ symbol: string }>(UNKNOWN, [scope.symbols])
  if (rows.length === 0) return
  const names = rows.map(({ symbol }) => symbol).join(', ')
  throw new TapelineError(
    'INPUT',
    `--symbol ${names}: no row, no ledger row and no dead letter knows ${rows.length === 1 ? 'it' : 'them'}`,
    { fix: 'Name symbols that are stored; without --symbol all of them are audited.' },
  )
}
