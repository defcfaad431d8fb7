import { ExchangeRefusal } from '../foundation/binance/refusal.ts'
import { type BackoffPolicy, delayFor, sleep, unlessAborted } from '../foundation/runtime/backoff.ts'
import { describeError, isTapelineError } from '../foundation/runtime/errors.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import type { Ports } from './ports.ts'

const EXCHANGE_FIX =
  'Check the network, BINANCE_WS_URL and BINANCE_REST_URL. To try Tapeline without network: npm run demo'

type PatientStartPorts = Pick<Ports, 'clock' | 'random'>

/** Runs the start steps that need Kafka or the exchange, retrying each until it succeeds. */
export class PatientStart {
  readonly #ports: PatientStartPorts
  readonly #backoff: BackoffPolicy
  readonly #signal: AbortSignal
  readonly #log: Logger
  /** Why ingestion is not running yet; empty once it is. */
  waitingFor = 'Kafka has not answered yet'

  constructor(ports: PatientStartPorts, backoff: BackoffPolicy, signal: AbortSignal, log: Logger) {
    this.#ports = ports
    this.#backoff = backoff
    this.#signal = signal
    this.#log = log
  }

  /** Retries until it succeeds. @throws TapelineError, except `KAFKA` for a missing topic */
  async until<Result>(what: 'Kafka' | 'The exchange', attempt: () => Promise<Result>): Promise<Result> {
    let refused = ''
    for (let failures = 1; ; failures++) {
      this.#signal.throwIfAborted()
      try {
        return await unlessAborted(attempt(), this.#signal)
      } catch (error) {
        this.#signal.throwIfAborted()
        if (isTapelineError(error) && error.code !== 'KAFKA') throw error
        const { reason, fix } = reasonOf(what, error)
        this.waitingFor = `${what} cannot be used yet: ${reason}. ${fix}`.trim()
        const details = isTapelineError(error) ? { fix } : { err: error, fix }
        // A ban may last for hours, so it is logged once.
        if (!(error instanceof ExchangeRefusal) || error.refusal.reason !== refused)
          this.#log.warn(details, `${what} cannot be used yet, retrying: ${reason}`)
        refused = error instanceof ExchangeRefusal ? error.refusal.reason : ''
        const waitMs = delayFor(failures, this.#backoff, this.#ports.random())
        await sleep(waitMs, this.#signal, this.#ports.clock)
      }
    }
  }
}

function reasonOf(what: string, error: unknown): { reason: string; fix: string } {
  const reason = describeError(error)
  if (isTapelineError(error)) return { reason, fix: error.fix }
  if (error instanceof ExchangeRefusal) return { reason, fix: error.fix || EXCHANGE_FIX }
  return { reason, fix: what === 'The exchange' ? EXCHANGE_FIX : '' }
}
