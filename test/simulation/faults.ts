import type { Random } from '../../src/sandbox/simulator/market/random.ts'
import { CLUSTER_FAULTS } from './cluster-faults.ts'
import { type FaultKind, fault, MINUTE, SECOND } from './fault-kind.ts'
import type { World } from './world.ts'

const HOUR = 60 * MINUTE

/** All faults between the market and Kafka. */
const KINDS: readonly FaultKind[] = [
  fault('cut of one connection', 6, ({ exchange }) => exchange.cut(false)),
  fault('cut of all connections', 4, ({ exchange }) => exchange.cut(true)),
  fault('frames dropped', 8, ({ exchange }, random) => exchange.drop(random.whole(1, 60))),
  fault('frames twice', 3, ({ exchange }, random) => exchange.duplicate(random.whole(1, 200))),
  fault('garbage', 3, ({ exchange }, random) => exchange.garbage(random.whole(1, 20))),
  fault('delayed connection', 4, ({ exchange }, random) => exchange.delay(random.between(300, 4000))),
  fault('serverShutdown', 3, ({ exchange }) => exchange.serverShutdown()),
  fault('connections refused', 3, (world, random) => {
    world.exchange.refuse(
      random.pick(['refuse', 'hang', 'close after handshake']),
      random.between(1, 60) * SECOND,
    )
    world.exchange.cut(true)
  }),
  fault('stall of a stream', 4, (world, random) => {
    const stream = `${random.pick(['btcusdt', 'ethusdt'])}@${random.pick(['trade', 'aggTrade', 'bookTicker'])}`
    const healedBy = random.pick(['resubscribe', 'reconnect'] as const)
    world.exchange.stalls.begin({ stream, silent: false, healedBy }, random.between(5, 1800) * SECOND)
  }),
  fault('stall of a connection', 2, ({ exchange }, random) => {
    const silent = random.chance(0.5)
    exchange.stalls.begin({ stream: null, silent, healedBy: 'reconnect' }, random.between(5, 1800) * SECOND)
  }),
  fault('REST with Retry-After', 3, ({ rest }, random) => {
    rest.misbehave(random.pick(['wait 429', 'wait 418', 'firewall 403']), random.between(1, 60) * SECOND)
  }),
  fault('REST in error', 3, ({ rest }, random) =>
    rest.misbehave('error 500', random.between(1, 120) * SECOND),
  ),
  fault('REST answers short', 3, ({ rest }, random) => {
    rest.misbehave(random.pick(['empty', 'short']), random.between(1, 200) * SECOND)
  }),
  fault('REST moves forward', 2, ({ rest }, random) =>
    rest.misbehave('clamp', random.between(1, 60) * SECOND),
  ),
  fault('REST without some ids', 2, ({ rest, market, exchange }, random) => {
    // Not of the rarely traded symbol: without its latest row nothing could reveal the ids.
    rest.hide(
      random.pick(market.symbols.slice(0, 2)),
      random.pick(['trade', 'aggTrade']),
      random.whole(1, 20),
    )
    exchange.drop(random.whole(1, 40))
  }),
  fault('brokers away', 5, ({ kafka }, random) =>
    kafka.cluster.cutClients(random.between(1, 90) * SECOND, random.chance(0.5)),
  ),
  fault('ingestion killed', 7, (world, random) => world.kill(random.between(0.1, 60) * SECOND)),
  fault('ingestion stopped and started', 3, (world, random) =>
    world.restart(random.between(0.1, 60) * SECOND),
  ),
  fault('ingestion paused', 4, (world, random) => world.pause(random.between(0.5, 25) * SECOND)),
  fault('ingestion frozen for long', 1, (world, random) => world.pause(random.pick([90, 600]) * SECOND)),
  fault('machine suspended', 2, (world, random) => world.suspend(random.between(1.5, 600) * SECOND)),
  fault('clock set ahead', 2, (world, random) => {
    const aheadMs = random.pick([2 * SECOND, MINUTE, 2 * HOUR, 8 * HOUR])
    world.setClock(aheadMs, random.between(5, 900) * SECOND)
  }),
  fault('clock set back', 2, (world, random) => {
    const backMs = random.pick([2 * SECOND, MINUTE, 50 * MINUTE])
    world.setClock(-backMs, random.between(5, 900) * SECOND)
  }),
  fault('clock moved a little', 1, (world, random) =>
    world.setClock(random.between(-0.9, 0.9) * SECOND, random.between(1, 60) * SECOND),
  ),
  fault('newer instance', 2, (world) => world.takeOver()),
  fault('ids restart', 1, ({ market, stored }, random) => {
    const symbol = random.pick(market.symbols)
    // One restart at a time: one that began and ended while ingestion was down leaves no trace.
    const isKnown = (['trade', 'aggTrade'] as const).every((type) =>
      stored.streams.has(`${symbol} ${type} ${market.current(symbol, type).epoch}`),
    )
    if (isKnown) market.restartIds(symbol)
  }),
]

/** Drawn only on request of a seed, so that the days of other seeds do not change. */
const REFUSALS: readonly FaultKind[] = [
  fault('REST refused', 4, ({ rest }, random) =>
    rest.misbehave(random.pick(['refused 451', 'page 404']), random.between(1, 1800) * SECOND),
  ),
  fault('handshakes refused', 6, ({ exchange }, random) => {
    const [status, retryAfter] = random.pick([
      [418, '300'],
      [429, '60'],
      [403, null],
      [451, null],
      [503, null],
      [503, '120'],
    ] as const)
    exchange.refuse({ status, retryAfter }, random.between(1, 300) * SECOND)
    exchange.cut(random.chance(0.5))
  }),
]

/**
 * Faults of an exchange that changes its symbols, has maintenance, and gives unexpected answers.
 */
const EXCHANGE: readonly FaultKind[] = [
  ...REFUSALS,
  fault('REST in the other unit', 2, ({ rest }, random) =>
    rest.misbehave('other unit', random.between(1, 600) * SECOND),
  ),
  fault('exchangeInfo makes no sense', 3, ({ rest }, random) =>
    rest.misname(random.pick(['error', 'short']), random.between(1, 20) * MINUTE),
  ),
  fault('streams in the other unit', 1, ({ exchange }, random) =>
    exchange.otherUnit(random.between(1, 60) * SECOND),
  ),
  fault('maintenance', 2, ({ market, exchange, rest, clock }, random) => {
    const forMs = random.between(1, 60) * MINUTE
    const halted = [...market.statuses.keys()]
    market.setStatus(halted, 'BREAK')
    clock.schedule(forMs, () => market.setStatus(halted, 'TRADING'))
    if (random.chance(0.5)) return
    exchange.refuse({ status: 503, retryAfter: null }, forMs)
    exchange.cut(true)
    rest.misbehave('maintenance 503', forMs)
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

/** Draws a fault and carries it out, within a burst of events. @returns its name */
export function strike(world: World, random: Random): string {
  const { clusterFaults, exchangeFaults, seed } = world.options
  const ofCluster = clusterFaults === true ? CLUSTER_FAULTS : []
  const ofExchange = exchangeFaults === true ? EXCHANGE : seed % 10 === 9 ? REFUSALS : []
  const kinds = [...KINDS, ...ofCluster, ...ofExchange]
  let at = random.next() * kinds.reduce((sum, { weight }) => sum + weight, 0)
  const kind = kinds.find(({ weight }) => {
    at -= weight
    return at < 0
  })
  if (kind === undefined) throw new Error('No fault was drawn')
  kind.act(world, random)
  return kind.name
}
