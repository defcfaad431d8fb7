import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import { LIVE_VENUE } from '../../foundation/binance/venue.ts'
import { describeError, TapelineError } from '../../foundation/runtime/errors.ts'
import type { Settings } from '../../foundation/settings/load.ts'
import { DEFAULT_SYMBOLS } from '../simulator/market/instruments.ts'
import { simulatedExchangeName } from '../simulator/simulated-exchange.ts'
import { askedExchangeIdentity, otherExchangeUrl } from './exchange-identity.ts'

export type ExchangeChoice =
  | { readonly kind: 'binance' }
  | { readonly kind: 'simulated'; readonly seed?: number; readonly rate?: number; readonly faults?: boolean }
  | { readonly kind: 'replay'; readonly file: string; readonly speed?: number; readonly faults?: boolean }

/** The directories of one source. Data of different sources never share one. */
export interface ExchangeDirectory {
  /** Like `binance`, `simulated`, `simulated:seed=1,rate=5000` or `replay:<file>:<12 hex>`. */
  readonly source: string
  readonly root: string
  readonly kafka: string
  readonly database: string
  readonly archive: string
  /** Files about the processes that `up` has started. */
  readonly run: string
  readonly logs: string
}

/** Shared by all sources, and can be downloaded again: the Kafka distribution. */
export function cacheDirectory(dataDir: string): string {
  return join(resolve(dataDir), 'cache')
}

/**
 * Determines the name of a source. Asks the exchange if its address is not Binance's default.
 * @throws TapelineError `INPUT` when the file cannot be read, `EXCHANGE` when no exchange answers
 */
export async function exchangeName(choice: ExchangeChoice, settings: Settings): Promise<string> {
  switch (choice.kind) {
    case 'binance':
      return otherExchangeUrl(settings) === null ? LIVE_VENUE : askedExchangeIdentity(settings)
    case 'simulated':
      return simulatedExchangeName({
        ...(choice.seed === undefined ? {} : { seed: choice.seed }),
        ...(choice.rate === undefined ? {} : { messagesPerSecond: choice.rate }),
        symbols: simulatedSymbols(settings.SYMBOLS),
      })
    case 'replay':
      return `replay:${basename(choice.file)}:${(await sha256(choice.file)).slice(0, 12)}`
  }
}

/** The symbols of the simulated exchange: the configured ones, or its defaults for `*`. */
export function simulatedSymbols(symbols: readonly string[]): readonly string[] {
  return symbols.includes('*') ? DEFAULT_SYMBOLS : symbols
}

/** Absolute paths. Creates nothing. */
export function exchangeDirectory(dataDir: string, source: string): ExchangeDirectory {
  const root = join(resolve(dataDir), directoryName(source))
  const of = (name: string) => join(root, name)
  return {
    ...{ source, root, kafka: of('kafka'), database: of('database'), archive: of('archive') },
    ...{ run: of('run'), logs: of('logs') },
  }
}

/** Valid in any file system and shell: `simulated:seed=1,rate=5000` → `simulated-seed=1-rate=5000`. */
function directoryName(source: string): string {
  const name = source.replaceAll(/[^\w=.-]/g, '-')
  return /^(binance|simulated|replay)\b/.test(name) ? name : `exchange-${name}`
}

async function sha256(file: string): Promise<string> {
  const hash = createHash('sha256')
  try {
    for await (const chunk of createReadStream(file)) hash.update(chunk)
  } catch (error) {
    const fix = 'Use a file that `bin/tapeline capture` has written.'
    throw new TapelineError('INPUT', `${file} cannot be read: ${describeError(error)}`, { fix, cause: error })
  }
  return hash.digest('hex')
}
