/** The exchange's limit of request weight per IP and minute, and its reaction when exceeded. */
export interface RestLimits {
  readonly weightPerMinute: number
  /** Number of 429 answers in one minute before the IP is banned (418). */
  readonly refusalsBeforeBan: number
  /** The first ban. Each further one of the same IP is twice as long, at most three days. */
  readonly banMs: number
}

export const DEFAULT_REST_LIMITS: RestLimits = {
  weightPerMinute: 6_000,
  refusalsBeforeBan: 10,
  banMs: 120_000,
}

const MINUTE_MS = 60_000
const LONGEST_BAN_MS = 3 * 24 * 3_600_000

/** `used` is the weight of the IP in this minute, including this request. */
export type WeightVerdict =
  | { readonly allowed: true; readonly used: number }
  | { readonly allowed: false; readonly used: number; readonly status: 429 | 418; readonly retryAtMs: number }

interface Account {
  minute: number
  used: number
  refusals: number
  bans: number
  bannedUntilMs: number
}

/** Counts the weight of each IP. Minutes are those of the wall clock, as on the exchange. */
export class WeightLimit {
  readonly #limits: RestLimits
  readonly #accounts = new Map<string, Account>()

  constructor(limits: RestLimits) {
    this.#limits = limits
  }

  take(ip: string, weight: number, nowMs: number): WeightVerdict {
    const account = this.#accountOf(ip, Math.floor(nowMs / MINUTE_MS))
    account.used += weight
    const { used } = account
    if (nowMs < account.bannedUntilMs)
      return { allowed: false, used, status: 418, retryAtMs: account.bannedUntilMs }
    if (used <= this.#limits.weightPerMinute) return { allowed: true, used }
    account.refusals++
    if (account.refusals <= this.#limits.refusalsBeforeBan) {
      return { allowed: false, used, status: 429, retryAtMs: (account.minute + 1) * MINUTE_MS }
    }
    account.bannedUntilMs = nowMs + Math.min(LONGEST_BAN_MS, this.#limits.banMs * 2 ** account.bans)
    account.bans++
    return { allowed: false, used, status: 418, retryAtMs: account.bannedUntilMs }
  }

  #accountOf(ip: string, minute: number): Account {
    const account = this.#accounts.get(ip) ?? { minute, used: 0, refusals: 0, bans: 0, bannedUntilMs: 0 }
    if (account.minute !== minute) Object.assign(account, { minute, used: 0, refusals: 0 })
    this.#accounts.set(ip, account)
    return account
  }
}
