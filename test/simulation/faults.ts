import type { SequencedType } from '../../src/foundation/market/event.ts'
import type { FaultRequest } from '../../src/sandbox/simulator/faults/fault-kinds.ts'
import type { Random } from '../../src/sandbox/simulator/market/random.ts'
import type { BrokerState } from './cluster/broker.ts'
import type { Cluster } from './cluster/cluster.ts'
import { ERROR } from './cluster/partition.ts'
import type { FrameFault } from './exchange.ts'
import type { World } from './world.ts'

const SECOND = 1000
const MINUTE = 60 * SECOND
const HOUR = 60 * MINUTE

interface FaultKind {
  readonly name: string
  /** Relative frequency. */
  readonly weight: number
  readonly act: (world: World, random: Random) => void
}

function fault(name: string, weight: number, act: FaultKind['act']): FaultKind {
  return { name, weight, act }
}

/** Milliseconds, from a drawn number of seconds. */
const seconds = (random: Random, low: number, high: number) => random.between(low, high) * SECOND

/** Whole milliseconds. */
const drawnMs = (random: Random, low: number, high: number) => Math.round(seconds(random, low, high))

/** A fault of the exchange's table. */
function ofExchange(name: string, weight: number, draw: (random: Random) => FaultRequest): FaultKind {
  return fault(name, weight, ({ exchange }, random) => exchange.add(draw(random)))
}

/** A fault of one connection. */
function ofOne(name: string, weight: number, draw: (random: Random) => FrameFault): FaultKind {
  return fault(name, weight, ({ exchange }, random) => exchange.addToOne(draw(random)))
}

/** A fault of the Kafka cluster. */
function ofCluster(
  name: string,
  weight: number,
  act: (cluster: Cluster, random: Random, clock: World['clock']) => void,
): FaultKind {
  return fault(name, weight, ({ kafka, clock }, random) => act(kafka.cluster, random, clock))
}

/** A broker leaves the state `up` for a drawn number of seconds. */
function disturbed(
  name: string,
  weight: number,
  state: Exclude<BrokerState, 'up'>,
  low: number,
  high: number,
): FaultKind {
  return ofCluster(name, weight, (cluster, random) =>
    cluster.disturb(anyNode(cluster, random), state, seconds(random, low, high)),
  )
}

const anyNode = ({ brokers }: Cluster, random: Random) => random.pick([...brokers.keys()])
const anyPartition = ({ partitions }: Cluster, random: Random) => random.pick([...partitions.values()])

/** Every connection closes without a handshake. */
const CUT = { kind: 'cut' } as const

/** All faults between the market and Kafka. */
const KINDS: readonly FaultKind[] = [
  fault('cut of one connection', 6, ({ exchange }) => exchange.cutOldest()),
  ofExchange('cut of all connections', 4, () => CUT),
  ofOne('frames dropped', 8, (random) => ({ kind: 'drop', count: random.whole(1, 60) })),
  ofOne('frames twice', 3, (random) => ({ kind: 'duplicate', count: random.whole(1, 200) })),
  ofOne('garbage', 3, (random) => ({ kind: 'garbage', form: 'truncated', count: random.whole(1, 20) })),
  ofOne('delayed connection', 4, (random) => ({ kind: 'delay', delayMs: drawnMs(random, 0.3, 4) })),
  ofExchange('serverShutdown', 3, () => ({ kind: 'serverShutdown' })),
  fault('connections refused', 3, ({ exchange }, random) => {
    const kind = random.pick(['refuse', 'unreachable', 'closeAfterHandshake'] as const)
    const forMs = drawnMs(random, 1, 60)
    exchange.add(kind === 'refuse' ? { kind, how: 'reset', forMs } : { kind, forMs })
    exchange.add(CUT)
  }),
  fault('stall of a stream', 4, ({ exchange, market }, random) => {
    const types = ['trade', 'aggTrade', 'bookTicker', ...(market.hasBooks ? ['depth@100ms'] : [])]
    exchange.add({
      kind: 'stall',
      stream: `${random.pick(['btcusdt', 'ethusdt'])}@${random.pick(types)}`,
      healedBy: random.pick(['resubscribe', 'reconnect']),
      forMs: drawnMs(random, 5, 1800),
    })
  }),
  ofExchange('stall of a connection', 2, (random) => ({
    kind: 'stall',
    pings: !random.chance(0.5),
    healedBy: 'reconnect',
    forMs: drawnMs(random, 5, 1800),
  })),
  ofExchange('REST with Retry-After', 3, (random) => ({
    kind: 'restError',
    ...random.pick([{ status: 429, retryAfterSeconds: 20 }, { status: 418 }, { status: 403 }]),
    forMs: drawnMs(random, 1, 60),
  })),
  ofExchange('REST in error', 3, (random) => ({ kind: 'restError', forMs: drawnMs(random, 1, 120) })),
  ofExchange('REST answers short', 3, (random) => ({
    kind: 'restShort',
    rows: random.pick([0, 3]),
    forMs: drawnMs(random, 1, 200),
  })),
  fault('REST moves forward', 2, ({ exchange, market }, random) => {
    const forMs = drawnMs(random, 1, 60)
    for (const symbol of market.symbols)
      for (const ids of ['trade', 'aggTrade'] as const) {
        const oldestId = Math.max(0, market.nextId(symbol, ids) - 50)
        exchange.add({ kind: 'restClamp', symbol, ids, oldestId, forMs })
      }
  }),
  fault('REST without some ids', 2, ({ market, exchange }, random) => {
    // Not of the rarely traded symbol: without its latest row nothing could reveal the ids.
    const symbol = random.pick(market.symbols.slice(0, 2))
    const ids = random.pick(['trade', 'aggTrade'] as const)
    const fromId = market.nextId(symbol, ids)
    exchange.add({ kind: 'restHole', symbol, ids, fromId, toId: fromId + random.whole(1, 20) - 1 })
    exchange.addToOne({ kind: 'drop', count: random.whole(1, 40) })
  }),
  ofCluster('brokers away', 5, (cluster, random) =>
    cluster.cutClients(seconds(random, 1, 90), random.chance(0.5)),
  ),
  fault('ingestion killed', 7, (world, random) => world.kill(seconds(random, 0.1, 60))),
  fault('ingestion stopped and started', 3, (world, random) => world.restart(seconds(random, 0.1, 60))),
  fault('ingestion paused', 4, (world, random) => world.pause(seconds(random, 0.5, 25))),
  fault('ingestion frozen for long', 1, (world, random) => world.pause(random.pick([90, 600]) * SECOND)),
  fault('machine suspended', 2, (world, random) => world.suspend(seconds(random, 1.5, 600))),
  fault('clock set ahead', 2, (world, random) =>
    world.setClock(random.pick([2 * SECOND, MINUTE, 2 * HOUR, 8 * HOUR]), seconds(random, 5, 900)),
  ),
  fault('clock set back', 2, (world, random) =>
    world.setClock(-random.pick([2 * SECOND, MINUTE, 50 * MINUTE]), seconds(random, 5, 900)),
  ),
  fault('clock moved a little', 1, (world, random) =>
    world.setClock(seconds(random, -0.9, 0.9), seconds(random, 1, 60)),
  ),
  fault('newer instance', 2, (world) => world.takeOver()),
  fault('ids restart', 1, ({ market, stored }, random) => {
    const symbol = random.pick(market.symbols)
    // One restart at a time: one that began and ended while ingestion was down leaves no trace.
    const types: SequencedType[] = ['trade', 'aggTrade', ...(market.hasBooks ? ['depth' as const] : [])]
    const isKnown = types.every((type) =>
      stored.streams.has(`${symbol} ${type} ${market.current(symbol, type).epoch}`),
    )
    if (isKnown) market.restartIds(symbol)
  }),
]

/** Brokers tolerate times up to an hour ahead of theirs. */
const BEHIND_MS = -2 * HOUR

const CLUSTER: readonly FaultKind[] = [
  disturbed('broker killed', 4, 'down', 1, 120),
  disturbed('broker hangs', 3, 'hung', 1, 60),
  disturbed('broker cut off from the others', 3, 'cut off', 5, 120),
  ofCluster('brokers restarted one after the other', 1, (cluster, random, clock) => {
    for (const [at, node] of [...cluster.brokers.keys()].entries())
      clock.schedule(at * 30 * SECOND, () => cluster.disturb(node, 'down', seconds(random, 3, 15)))
  }),
  ofCluster('preferred leaders elected', 3, (cluster) => cluster.electPreferred()),
  ofCluster('partitions reassigned', 3, (cluster, random) => {
    for (let left = random.whole(1, 4); left > 0; left--) cluster.reassign(anyPartition(cluster, random))
  }),
  ofCluster('answers of a broker lost', 3, (cluster, random) =>
    cluster.loseAnswers(anyNode(cluster, random), random.whole(1, 6), 10 * SECOND),
  ),
  ofCluster('partition refused', 2, (cluster, random) => {
    const error = random.pick([ERROR.TOPIC_AUTHORIZATION_FAILED, ERROR.KAFKA_STORAGE_ERROR])
    cluster.refuse([anyPartition(cluster, random).name], error, seconds(random, 1, 60))
  }),
  ofCluster('clock of a broker late', 2, (cluster, random) =>
    cluster.setClock(anyNode(cluster, random), BEHIND_MS, seconds(random, 1, 30)),
  ),
  ofCluster('broker forgets producers', 2, (cluster, random) =>
    anyPartition(cluster, random).forgetProducers(),
  ),
  ofCluster('tail of a partition lost', 2, (cluster, random) =>
    cluster.electUnclean(anyPartition(cluster, random), random.whole(1, 5)),
  ),
]

/** Drawn only on request of a seed, so that the days of other seeds do not change. */
const REFUSALS: readonly FaultKind[] = [
  ofExchange('REST refused', 4, (random) => ({
    kind: 'restError',
    status: random.pick([451, 404]),
    forMs: drawnMs(random, 1, 1800),
  })),
  fault('handshakes refused', 6, ({ exchange }, random) => {
    const refusal = random.pick([
      { status: 418, retryAfterSeconds: 300 },
      { status: 429, retryAfterSeconds: 60 },
      { status: 403 },
      { status: 451 },
      { status: 503 },
      { status: 503, retryAfterSeconds: 120 },
    ])
    exchange.add({ kind: 'refuse', ...refusal, forMs: drawnMs(random, 1, 300) })
    if (random.chance(0.5)) exchange.add(CUT)
    else exchange.cutOldest()
  }),
]

/** Faults of an exchange that changes its symbols, has maintenance, and gives unexpected answers. */
const EXCHANGE: readonly FaultKind[] = [
  ...REFUSALS,
  fault('REST in the other unit', 2, ({ rest }, random) =>
    rest.misbehave('other unit', seconds(random, 1, 600)),
  ),
  fault('exchangeInfo makes no sense', 3, ({ rest }, random) => {
    const oddity = random.pick(['exchangeInfo is not JSON', 'exchangeInfo is short'] as const)
    rest.misbehave(oddity, random.between(1, 20) * MINUTE)
  }),
  fault('streams in the other unit', 1, ({ exchange }, random) => exchange.otherUnit(seconds(random, 1, 60))),
  fault('maintenance', 2, ({ market, exchange, clock }, random) => {
    const forMs = drawnMs(random, 60, 3600)
    const halted = [...market.statuses.keys()]
    market.setStatus(halted, 'BREAK')
    clock.schedule(forMs, () => market.setStatus(halted, 'TRADING'))
    if (random.chance(0.5)) return
    exchange.add({ kind: 'refuse', status: 503, forMs })
    exchange.add({ kind: 'restError', status: 503, forMs })
    exchange.add(CUT)
  }),
  fault('symbol halted', 3, ({ market, clock }, random) => {
    const halted = [random.pick([...market.statuses.keys()])]
    market.setStatus(halted, 'BREAK')
    clock.schedule(random.between(1, 120) * MINUTE, () => market.setStatus(halted, 'TRADING'))
  }),
  fault('symbol listed', 4, ({ market }, random) => {
    if (market.symbols.length < MAX_SYMBOLS)
      market.list(`NEW${market.symbols.length}USDT`, random.pick([5 * SECOND, 2 * MINUTE]))
  }),
  fault('symbol delisted', 1, ({ market }, random) => {
    const listed = [...market.statuses.keys()].filter((symbol) => symbol.startsWith('NEW'))
    if (listed.length > 0) market.setStatus([random.pick(listed)], null)
  }),
]

/** Limit of listed symbols per run, so that a day does not grow without bound. */
const MAX_SYMBOLS = 12

const LOSSLESS = new Set([
  'frames twice',
  'delayed connection',
  'serverShutdown',
  'REST with Retry-After',
  'REST in error',
])

/** Draws a fault and carries it out, within a burst of events. @returns its name */
export function strike(world: World, random: Random): string {
  const { clusterFaults, exchangeFaults, isLossless, seed } = world.options
  const cluster = clusterFaults === true ? CLUSTER : []
  const exchange = exchangeFaults === true ? EXCHANGE : seed % 10 === 9 ? REFUSALS : []
  const all = [...KINDS, ...cluster, ...exchange]
  const kinds = isLossless === true ? all.filter(({ name }) => LOSSLESS.has(name)) : all
  let at = random.next() * kinds.reduce((sum, { weight }) => sum + weight, 0)
  const kind = kinds.find(({ weight }) => {
    at -= weight
    return at < 0
  })
  if (kind === undefined) throw new Error('No fault was drawn')
  kind.act(world, random)
  return kind.name
}
