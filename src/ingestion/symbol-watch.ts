import { sleep } from '../foundation/runtime/backoff.ts'
import { type Clock, Wake } from '../foundation/runtime/clock.ts'
import { describeError } from '../foundation/runtime/errors.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import { plural } from '../foundation/telemetry/plural.ts'
import type { SelectionChange, SymbolSelection } from './symbol-selection.ts'

/** Minimum time between two requests, since each quiet stream triggers one. */
const SOONEST_MS = 20_000

const NAMES_MAX = 20

/** More symbols that begin to trade at once are not new listings: trading resumes. */
const FIRST_TRADES_MAX = 20
const FIRST_TRADE_LIMIT_MS = 10_000

export interface SymbolWatchOptions {
  readonly clock: Clock
  readonly everyMs: number
  /** Requests the statuses of the symbols once the exchange accepts requests. */
  readonly ask: (signal: AbortSignal) => Promise<ReadonlyMap<string, string>>
  /** Returns when a symbol first traded, milliseconds since the Unix epoch; null if unknown. */
  readonly firstTradeMs: (symbol: string, signal: AbortSignal) => Promise<number | null>
  readonly onChange: (change: SelectionChange) => Promise<void>
}

/** Requests the exchange's symbols periodically and reports changes. Specification: N1. */
export class SymbolWatch {
  readonly #options: SymbolWatchOptions
  readonly #selection: SymbolSelection
  readonly #log: Logger
  /** Why the last attempt failed; empty if it succeeded. */
  #problem = ''
  readonly #wake: Wake
  #askedAtMs: number
  /** Wall clock, milliseconds since the Unix epoch. */
  readonly #startedAtMs: number

  constructor(options: SymbolWatchOptions, selection: SymbolSelection, log: Logger) {
    this.#options = options
    this.#selection = selection
    this.#log = log
    this.#wake = new Wake(options.clock)
    this.#askedAtMs = options.clock.monotonicMs()
    this.#startedAtMs = options.clock.wallMicros() / 1000
  }

  /** Requests the symbols early, because one may have halted. */
  askSoon(): void {
    this.#wake.ring()
  }

  /** Returns when the signal aborts; rejects if a change cannot be applied. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, everyMs, ask, onChange } = this.#options
    this.#sayWhatIsLeftOut()
    signal.addEventListener('abort', () => this.#wake.ring(), { once: true })
    while (!signal.aborted) {
      await this.#wake.wait(everyMs)
      if (signal.aborted) return
      const earlyMs = this.#askedAtMs + Math.min(everyMs, SOONEST_MS) - clock.monotonicMs()
      if (earlyMs > 0) await sleep(earlyMs, signal, clock)
      this.#askedAtMs = clock.monotonicMs()
      const statuses = await ask(signal).catch((error: unknown) => this.#failed(error, signal))
      // An answer that arrives during the shutdown must not open a connection.
      if (statuses === null || signal.aborted) continue
      if (this.#problem !== '') this.#log.info('Loading the symbols of the exchange succeeded again')
      this.#problem = ''
      const change = await this.#withFirstTrades(this.#selection.update(statuses), signal)
      if (signal.aborted) return
      this.#say(change)
      await onChange(change)
    }
  }

  /** Adds to `listed` the symbols that first traded after this start, but were named before. */
  async #withFirstTrades(change: SelectionChange, signal: AbortSignal): Promise<SelectionChange> {
    const begun = change.added.filter((symbol) => !change.listed.includes(symbol))
    if (begun.length > FIRST_TRADES_MAX) return change
    const listed = [...change.listed]
    for (const symbol of begun) {
      const limit = new AbortController()
      const { clock, firstTradeMs } = this.#options
      const cancel = clock.schedule(FIRST_TRADE_LIMIT_MS, () => limit.abort(new Error('REST did not answer')))
      try {
        const firstMs = await firstTradeMs(symbol, AbortSignal.any([signal, limit.signal]))
        if (firstMs !== null && firstMs >= this.#startedAtMs) listed.push(symbol)
      } catch (error) {
        const text = `${symbol} is recorded from now on: its first trade is not known`
        if (!signal.aborted) this.#log.warn({ symbol, err: error }, text)
      } finally {
        cancel()
      }
    }
    return { ...change, listed }
  }

  #failed(error: unknown, signal: AbortSignal): null {
    const reason = describeError(error)
    if (reason !== this.#problem && !signal.aborted)
      this.#log.warn({ err: error }, `Loading the symbols of the exchange failed, retrying: ${reason}`)
    this.#problem = reason
    return null
  }

  #sayWhatIsLeftOut(): void {
    const { subscribed, halted, leftOut } = this.#selection
    for (const [reason, symbols] of Map.groupBy(leftOut.keys(), (symbol) => leftOut.get(symbol))) {
      // A named symbol that was delisted needs an operator.
      const level = reason === 'delisted' && !this.#selection.isAll ? 'error' : 'info'
      this.#log[level](
        { reason, symbols: symbols.length, subscribed: subscribed.size },
        `Symbols left out, ${reason}: ${named(symbols)}`,
      )
    }
    if (halted.size > 0)
      this.#log.warn(`Subscribed to symbols that are not trading now: ${named([...halted])}`)
  }

  #say({ joined, listed, left, halted, resumed }: SelectionChange): void {
    const lines = [
      ['info', 'joined', 'Subscribed to symbols', joined],
      ['info', 'listed', 'The exchange listed symbols, which are recorded from their first id', listed],
      ['error', 'delisted', 'The exchange delisted symbols; unsubscribed from their streams', left],
      ['warn', 'halted', 'Symbols stopped trading', halted],
      ['info', 'resumed', 'Symbols resumed trading', resumed],
    ] as const
    for (const [level, change, text, symbols] of lines)
      if (symbols.length > 0)
        this.#log[level]({ change, symbols: symbols.length }, `${text}: ${named(symbols)}`)
  }
}

function named(symbols: readonly string[]): string {
  const shown = symbols.slice(0, NAMES_MAX).join(', ')
  const more = symbols.length - NAMES_MAX
  return more > 0 ? `${shown} and ${plural(more, 'other')}` : shown
}
