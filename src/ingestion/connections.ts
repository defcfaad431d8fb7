import { type ConnectionPlan, changePlans } from '../foundation/binance/connection-plan.ts'
import type { ExchangeGate } from '../foundation/binance/exchange-gate.ts'
import { exchangeIdentity } from '../foundation/binance/venue.ts'
import { rejectOtherExchange } from '../foundation/kafka/exchange-identity-mark.ts'
import type { TimeUnit } from '../foundation/market/time-unit.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import type { IngestionConfig } from './config.ts'
import { ConnectionSlot } from './connection-slot.ts'
import type { Core } from './core.ts'
import type { MessageQueue } from './messages/message-queue.ts'
import type { Ports } from './ports.ts'
import type { WsConsumer } from './ws-consumer.ts'

const OTHER_EXCHANGE_FIX = 'Restore BINANCE_WS_URL, or use other topics for this exchange.'

export interface ConnectionsOptions {
  readonly config: IngestionConfig
  readonly ports: Ports
  readonly gate: ExchangeGate
  readonly core: Core
  readonly queue: MessageQueue
  readonly source: string
  readonly timeUnit: TimeUnit
  /** Called when streams have gone quiet and their subscription is renewed. */
  readonly onQuiet: () => void
  readonly onFatal: (error: unknown) => void
}

interface Group {
  plan: ConnectionPlan
  readonly slots: readonly ConnectionSlot[]
}

/** Spreads streams over connections to the exchange, and follows changes of the streams. */
export class Connections {
  readonly #options: ConnectionsOptions
  readonly #log: Logger
  #groups: Group[] = []
  #nextId = 0
  #leaving: Promise<unknown> = Promise.resolve()
  /** Counts of slots whose streams have all left: counters must not fall. */
  readonly #past = { rollovers: 0, lost: 0 }

  constructor(options: ConnectionsOptions, log: Logger) {
    this.#options = options
    this.#log = log
  }

  get slots(): ConnectionSlot[] {
    return this.#groups.flatMap(({ slots }) => slots)
  }

  get all(): WsConsumer[] {
    return this.slots.flatMap(({ connections }) => connections)
  }

  get rollovers(): number {
    return this.slots.reduce((sum, { rollovers }) => sum + rollovers, this.#past.rollovers)
  }

  get lost(): number {
    return this.slots.reduce((sum, { lost }) => sum + lost, this.#past.lost)
  }

  get streams(): string[] {
    return this.#groups.flatMap(({ plan }) => plan.streams)
  }

  /** Changes streams. Opens a connection only for those that do not fit the open ones. */
  change(joining: readonly string[], leaving: readonly string[]): void {
    const plans = changePlans(
      this.#options.config.wsUrl,
      this.#groups.map(({ plan }) => plan),
      joining,
      new Set(leaving),
      this.#options.timeUnit,
    )
    for (const [index, plan] of plans.entries()) {
      const group = this.#groups[index]
      if (group === undefined) this.#groups.push(this.#open(plan))
      else if (group.plan !== plan) {
        group.plan = plan
        for (const slot of group.slots) slot.follow(plan)
      }
    }
    const ended = this.#groups.flatMap(({ plan, slots }) => (plan.streams.length === 0 ? slots : []))
    this.#groups = this.#groups.filter(({ plan }) => plan.streams.length > 0)
    for (const { rollovers, lost } of ended) {
      this.#past.rollovers += rollovers
      this.#past.lost += lost
    }
    this.#leaving = Promise.all([this.#leaving, ...ended.map((slot) => slot.stop())])
  }

  async stop(): Promise<void> {
    await Promise.all([this.#leaving, ...this.slots.map((slot) => slot.stop())])
  }

  #open(plan: ConnectionPlan): Group {
    const { config, core, source } = this.#options
    const options = {
      ...this.#options,
      plan,
      rates: core.rates,
      backoff: config.backoff,
      maxAgeMs: config.connectionMaxAgeMs,
      nextId: () => this.#nextId++,
      sink: core,
      checkIdentity: (named: string | null) =>
        rejectOtherExchange('The topics', source, exchangeIdentity(named, config), OTHER_EXCHANGE_FIX),
      onQuiet: (streams: readonly string[]) => {
        core.quiet(streams)
        this.#options.onQuiet()
      },
    }
    const slots = Array.from(
      { length: config.connectionsPerStream },
      () => new ConnectionSlot(options, this.#log),
    )
    for (const slot of slots) slot.start()
    return { plan, slots }
  }
}
