import { TRADING } from '../foundation/binance/exchange-info.ts'
import { partitionOf } from '../foundation/kafka/partition.ts'
import { TapelineError } from '../foundation/runtime/errors.ts'
import type { IngestionConfig } from './config.ts'

export const LEFT_OUT_REASONS = ['halted', 'delisted', 'other shard'] as const
export type LeftOutReason = (typeof LEFT_OUT_REASONS)[number]

/** Symbols by what an answer of the exchange has changed. */
export interface SelectionChange {
  /** New to this instance: they need start records. */
  readonly added: string[]
  /** Those of `added` that an earlier answer lacked: recorded from their first id. */
  readonly listed: string[]
  readonly joined: string[]
  readonly left: string[]
  readonly halted: string[]
  readonly resumed: string[]
}

/** A symbol is dropped after so many consecutive answers without it: one may be truncated. */
const ABSENT_ANSWERS = 2

/** Selects symbols: this shard of the named ones, or for `*` of all that trade. Specification: N1 to N6. */
export class SymbolSelection {
  readonly #config: Pick<IngestionConfig, 'symbols' | 'shard' | 'restUrl'>
  readonly isAll: boolean
  readonly #taken = new Set<string>()
  readonly #subscribed = new Set<string>()
  readonly #halted = new Set<string>()
  readonly #leftOut = new Map<string, LeftOutReason>()
  /** Symbols whose state this instance keeps, subscribed or not. */
  readonly taken: ReadonlySet<string> = this.#taken
  readonly subscribed: ReadonlySet<string> = this.#subscribed
  readonly halted: ReadonlySet<string> = this.#halted
  /** Symbols without a subscription, with the reason. */
  readonly leftOut: ReadonlyMap<string, LeftOutReason> = this.#leftOut
  /** The names in the first answer; null before it. */
  #first: ReadonlySet<string> | null = null
  /** How many consecutive answers did not have a subscribed symbol. */
  readonly #absences = new Map<string, number>()

  constructor(config: Pick<IngestionConfig, 'symbols' | 'shard' | 'restUrl'>) {
    this.#config = config
    this.isAll = config.symbols.join() === '*'
  }

  /** Returns why nothing can be recorded now; empty while a symbol trades. */
  get problem(): string {
    if (this.#first === null || this.#halted.size < this.#subscribed.size) return ''
    const { index, count } = this.#config.shard
    const of = count === 1 ? '' : ` of shard ${index}/${count}`
    return `no symbol${of} is trading; waiting until the exchange resumes trading`
  }

  /** Returns the configured names that the exchange does not list. */
  unlisted(statuses: ReadonlyMap<string, string>): string[] {
    return this.isAll ? [] : this.#config.symbols.filter((symbol) => !statuses.has(symbol))
  }

  /**
   * Selects the first symbols.
   * @param statuses null if the exchange does not answer, which a named list tolerates
   * @param known the symbols that have checkpoints
   * @throws TapelineError `EXCHANGE` for a name unknown to the exchange and to the checkpoints, and
   *   if this shard has none of the named symbols
   */
  begin(statuses: ReadonlyMap<string, string> | null, known: ReadonlySet<string>): void {
    const { symbols, shard, restUrl } = this.#config
    const wrong = statuses === null ? [] : this.unlisted(statuses).filter((symbol) => !known.has(symbol))
    if (wrong.length > 0) {
      throw new TapelineError('EXCHANGE', `Not spot symbols of ${restUrl}: ${wrong.join(', ')}`, {
        fix: 'Correct SYMBOLS; the exchange sends nothing for unknown streams.',
      })
    }
    if (!this.isAll && !symbols.some((symbol) => this.#isOurs(symbol))) {
      throw new TapelineError(
        'EXCHANGE',
        `Shard ${shard.index}/${shard.count} has none of the ${symbols.length} symbols`,
        { fix: 'Use fewer shards than symbols; the murmur2 hash of a symbol decides its shard.' },
      )
    }
    for (const symbol of this.isAll ? known : symbols) if (this.#isOurs(symbol)) this.#taken.add(symbol)
    if (statuses !== null) this.update(statuses)
    else for (const symbol of this.#taken) this.#subscribed.add(symbol)
  }

  update(statuses: ReadonlyMap<string, string>): SelectionChange {
    const change: SelectionChange = { added: [], listed: [], joined: [], left: [], halted: [], resumed: [] }
    this.#first ??= new Set(statuses.keys())
    this.#leftOut.clear()
    for (const symbol of this.isAll ? statuses.keys() : this.#config.symbols)
      if (!this.#isOurs(symbol)) this.#leftOut.set(symbol, 'other shard')
    for (const [symbol, status] of this.isAll ? statuses : []) {
      if (this.#taken.has(symbol) || !this.#isOurs(symbol)) continue
      if (status !== TRADING) {
        this.#leftOut.set(symbol, 'halted')
        continue
      }
      this.#taken.add(symbol)
      change.added.push(symbol)
      if (!this.#first.has(symbol)) change.listed.push(symbol)
    }
    for (const symbol of this.#taken) {
      const status = statuses.get(symbol)
      if (status === undefined) this.#miss(symbol, change.left)
      else this.#see(symbol, status === TRADING, change)
    }
    return change
  }

  #see(symbol: string, isTrading: boolean, change: SelectionChange): void {
    this.#absences.delete(symbol)
    if (!this.#subscribed.has(symbol)) {
      this.#subscribed.add(symbol)
      change.joined.push(symbol)
    }
    if (isTrading && this.#halted.delete(symbol)) change.resumed.push(symbol)
    if (isTrading || this.#halted.has(symbol)) return
    this.#halted.add(symbol)
    change.halted.push(symbol)
  }

  #miss(symbol: string, left: string[]): void {
    const absences = (this.#absences.get(symbol) ?? 0) + 1
    this.#absences.set(symbol, absences)
    if (this.#subscribed.has(symbol) && absences < ABSENT_ANSWERS) return
    this.#leftOut.set(symbol, 'delisted')
    this.#halted.delete(symbol)
    if (this.#subscribed.delete(symbol)) left.push(symbol)
  }

  #isOurs(symbol: string): boolean {
    const { index, count } = this.#config.shard
    return partitionOf(symbol, count) === index
  }
}
