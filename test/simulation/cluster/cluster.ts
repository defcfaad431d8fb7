import type { Random } from '../../../src/sandbox/simulator/market/random.ts'
import type { VirtualClock } from '../../support/virtual-clock.ts'
import { Broker, type BrokerState } from './broker.ts'
import { Partition, type PartitionEvents } from './partition.ts'

export interface ClusterOptions {
  readonly topics: readonly string[]
  readonly compacted: string
  /** A defect of the brokers: they acknowledge messages that only the leader has. */
  readonly acknowledgesBeforeReplicas?: boolean
}

export const PARTITIONS = 3
const NODES = [1, 2, 3, 4]
const REPLICAS = 3
const MIN_IN_SYNC = 2

/** The controller considers a broker dead after this time without a heartbeat. */
const SESSION_MS = 9000

/** A refusal of otherwise valid requests. */
interface Refusal {
  readonly errorCode: number
  readonly untilMs: number
}

/** A Kafka cluster in memory: brokers, replicated partitions, and a controller that elects leaders. */
export class Cluster {
  readonly brokers: ReadonlyMap<number, Broker>
  readonly partitions: ReadonlyMap<string, Partition>
  readonly topicIds: ReadonlyMap<string, string>
  readonly acknowledgesBeforeReplicas: boolean
  /** Violations, one sentence each. */
  readonly complaints: string[] = []
  /** When a broker last lost a request or its answer without a sign to the client. */
  lostAtMs = Number.NEGATIVE_INFINITY
  readonly #clock: VirtualClock
  readonly #random: Random
  readonly #refusals = new Map<string, Refusal>()
  readonly #replicating = new Set<Partition>()
  #producerIds = 0
  #clientsCutUntilMs = 0
  #clientsHang = false
  /** Called at every change that affects whether clients can be served. */
  onChange: () => void = () => {}

  constructor(options: ClusterOptions, clock: VirtualClock, random: Random, events: PartitionEvents) {
    this.#clock = clock
    this.#random = random
    this.acknowledgesBeforeReplicas = options.acknowledgesBeforeReplicas === true
    this.brokers = new Map(NODES.map((node) => [node, new Broker(node)]))
    const partitions = options.topics.flatMap((topic, at) =>
      Array.from({ length: PARTITIONS }, (_, index) => {
        const replicas = Array.from({ length: REPLICAS }, (_one, i) => NODES[(at + index + i) % NODES.length])
        const limits = { minInSync: MIN_IN_SYNC, isCompacted: topic === options.compacted }
        const nodes = replicas.filter((one) => one !== undefined)
        return new Partition(topic, index, nodes, limits, events)
      }),
    )
    this.partitions = new Map(partitions.map((one) => [one.name, one]))
    this.topicIds = new Map(
      options.topics.map((topic, at) => [topic, `00000000-0000-0000-0000-0000000000${at + 10}`]),
    )
    for (const broker of this.brokers.values()) this.#learn(broker)
  }

  get wallMs(): number {
    return this.#clock.wallMicros() / 1000
  }

  get nowMs(): number {
    return this.#clock.monotonicMs()
  }

  broker(node: number): Broker {
    const broker = this.brokers.get(node)
    if (broker === undefined) throw new RangeError(`No broker ${node}`)
    return broker
  }

  partition(topic: string, index: number): Partition | undefined {
    return this.partitions.get(`${topic}/${index}`)
  }

  #reaches(node: number): boolean {
    return this.broker(node).isReachable
  }

  nextProducerId(): bigint {
    return BigInt(++this.#producerIds)
  }

  /** How brokers treat clients: `answers` with an intact network. */
  get network(): 'answers' | 'refuses' | 'hangs' {
    if (this.#clientsCutUntilMs <= this.nowMs) return 'answers'
    return this.#clientsHang ? 'hangs' : 'refuses'
  }

  refusalOf(name: string): number | null {
    const refusal = this.#refusals.get(name)
    return refusal !== undefined && refusal.untilMs > this.nowMs ? refusal.errorCode : null
  }

  /**
   * Whether a correct client may expect service: every partition has a leader that knows it and
   * enough replicas, at most one broker misleads, and nothing is refused.
   */
  get isWhole(): boolean {
    const ill = [...this.brokers.values()].filter(
      ({ state, lostAnswers, clockOffsetMs }) => state !== 'up' || lostAnswers > 0 || clockOffsetMs !== 0,
    )
    if (ill.length > 1 || ill.some(({ state }) => state === 'up')) return false
    if (this.network !== 'answers') return false
    if ([...this.#refusals.values()].some(({ untilMs }) => untilMs > this.nowMs)) return false
    return [...this.partitions.values()].every((partition) => {
      const { inSync, minInSync } = partition
      const isHealthy = inSync.size >= minInSync && [...inSync].every((node) => this.#reaches(node))
      return isHealthy && this.#isLed(partition)
    })
  }

  /** A broker leaves the state `up` for this time. */
  disturb(node: number, state: Exclude<BrokerState, 'up'>, ms: number): void {
    const broker = this.broker(node)
    if (broker.state !== 'up') return
    broker.change(state)
    const { changes } = broker
    this.onChange()
    // Closed connections reveal a broker that shut down or was killed, sooner or later.
    const noticedMs = state === 'down' ? this.#random.between(100, SESSION_MS) : SESSION_MS
    this.#later(noticedMs, () => {
      if (broker.changes === changes) this.#fence(broker)
    })
    this.#later(ms, () => {
      if (broker.changes === changes) this.restore(node)
    })
  }

  restore(node: number): void {
    const broker = this.broker(node)
    if (broker.state === 'up') return
    broker.change('up')
    // Until then it works with its previous view.
    this.#later(this.#random.between(50, 1000), () => {
      if (!broker.isReachable) return
      broker.isFenced = false
      this.#learn(broker)
      this.#rejoin()
    })
    this.onChange()
  }

  /** Isolates the brokers from all clients for this time. */
  cutClients(ms: number, hang: boolean): void {
    this.#clientsCutUntilMs = Math.max(this.#clientsCutUntilMs, this.nowMs + ms)
    this.#clientsHang = hang
    this.#changeFor(ms)
  }

  /** Refuses matching partitions to producers with this error. */
  refuse(names: readonly string[], errorCode: number, ms: number): void {
    for (const name of names) this.#refusals.set(name, { errorCode, untilMs: this.nowMs + ms })
    this.#changeFor(ms)
  }

  setClock(node: number, offsetMs: number, ms: number): void {
    const broker = this.broker(node)
    broker.clockOffsetMs = offsetMs
    this.#changeFor(ms, () => {
      broker.clockOffsetMs = 0
    })
  }

  /** Loses requests to this broker or their answers: this many, or for this time. */
  loseAnswers(node: number, requests: number, ms: number): void {
    const broker = this.broker(node)
    broker.lostAnswers = requests
    this.#changeFor(ms, () => {
      broker.lostAnswers = 0
    })
  }

  #changeFor(ms: number, end: () => void = () => {}): void {
    this.onChange()
    this.#later(ms, () => {
      end()
      this.onChange()
    })
  }

  electPreferred(): void {
    for (const partition of this.partitions.values()) {
      const preferred = partition.replicas.find((node) => partition.inSync.has(node) && this.#reaches(node))
      if (preferred !== undefined) partition.lead(preferred)
    }
    this.#publish()
  }

  /** Moves one replica to the broker without one; if possible the first of the list, which leads. */
  reassign(partition: Partition): void {
    const spare = NODES.find((node) => !partition.replicas.includes(node))
    const [leaving, ...staying] = partition.replicas
    if (spare === undefined || leaving === undefined || !this.broker(spare).isReachable) return
    const successor = staying.find((node) => partition.inSync.has(node) && this.#reaches(node))
    if (successor === undefined || partition.leaderLog === undefined) return
    if (!this.#reaches(partition.leadership.leader)) return
    partition.add(spare)
    partition.replicate([spare, ...[...partition.inSync].filter((node) => this.#reaches(node))])
    partition.commit()
    partition.replicas = [...staying, spare]
    if (partition.leadership.leader === leaving) partition.lead(successor)
    partition.remove(leaving)
    this.#publish()
    this.#rejoin()
  }

  /** @returns whether there was a replica to elect */
  electUnclean(partition: Partition, lacking: number): boolean {
    const lagging = partition.replicas.find(
      (node) => node !== partition.leadership.leader && this.#reaches(node),
    )
    if (lagging === undefined || !partition.electUnclean(lagging, lacking)) return false
    this.#publish()
    this.#rejoin()
    return true
  }

  /** Ends every fault. */
  recover(): void {
    this.#clientsCutUntilMs = 0
    this.#refusals.clear()
    for (const broker of this.brokers.values()) {
      broker.lostAnswers = 0
      broker.clockOffsetMs = 0
      this.restore(broker.node)
    }
    this.onChange()
  }

  /** Lets followers fetch soon after an append. */
  replicateSoon(partition: Partition): void {
    if (this.#replicating.has(partition)) return
    this.#replicating.add(partition)
    this.#later(this.#random.between(0.2, 3), () => {
      this.#replicating.delete(partition)
      this.#replicate(partition)
    })
  }

  /** Whether its leader is reachable and knows that it leads. */
  #isLed({ name, leadership }: Partition): boolean {
    const leader = this.brokers.get(leadership.leader)
    return leader?.isReachable === true && leader.view.get(name) === leadership
  }

  #replicate(partition: Partition): void {
    if (!this.#isLed(partition)) return
    partition.replicate(partition.replicas.filter((node) => this.#reaches(node)))
    partition.commit()
  }

  #fence(broker: Broker): void {
    broker.isFenced = true
    for (const partition of this.partitions.values()) {
      // The last in-sync replica stays in the list, so that nothing is lost.
      if (partition.inSync.size > 1) partition.inSync.delete(broker.node)
      if (partition.leadership.leader === broker.node) partition.lead(this.#successor(partition))
    }
    this.#publish()
  }

  #successor({ replicas, inSync }: Partition): number {
    const isFit = (node: number) => inSync.has(node) && !this.broker(node).isFenced && this.#reaches(node)
    return replicas.find(isFit) ?? -1
  }

  /** Elects leaders for partitions without one, and lets out-of-sync replicas catch up. */
  #rejoin(): void {
    for (const partition of this.partitions.values())
      if (partition.leadership.leader === -1) partition.lead(this.#successor(partition))
    this.#publish()
    this.#later(this.#random.between(600, 3000), () => {
      for (const partition of this.partitions.values()) {
        this.#replicate(partition)
        if (!this.#isLed(partition)) continue
        for (const node of partition.replicas)
          if (this.#reaches(node) && !this.broker(node).isFenced) partition.inSync.add(node)
        partition.commit()
      }
      this.onChange()
    })
  }

  /** Brokers learn of new leaders at different moments. */
  #publish(): void {
    this.onChange()
    for (const broker of this.brokers.values())
      this.#later(this.#random.between(1, 500), () => {
        if (broker.isReachable && !broker.isFenced) this.#learn(broker)
      })
  }

  #learn(broker: Broker): void {
    const before = broker.view
    broker.view = new Map([...this.partitions.values()].map(({ name, leadership }) => [name, leadership]))
    for (const partition of this.partitions.values()) {
      const led = before.get(partition.name)?.leader === broker.node
      if (led && before.get(partition.name) !== partition.leadership) partition.resign(broker.node)
      if (partition.leadership.leader === broker.node) this.replicateSoon(partition)
    }
    this.onChange()
  }

  #later(ms: number, run: () => void): void {
    this.#clock.schedule(ms, run)
  }
}
