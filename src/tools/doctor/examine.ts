import { ExchangeRefusal } from '../../foundation/binance/refusal.ts'
import { inspectTopics, type TopicReport } from '../../foundation/kafka/topics.ts'
import { unlessAborted } from '../../foundation/runtime/backoff.ts'
import { describeError, isTapelineError } from '../../foundation/runtime/errors.ts'
import type { Settings } from '../../foundation/settings/load.ts'
import { NO_DATABASE } from '../../foundation/settings/parsers.ts'
import { plural } from '../../foundation/telemetry/plural.ts'
import { archiveStatus, consumerStatus, ingestionStatus } from '../../foundation/telemetry/service-status.ts'
import type { Endpoints } from '../../sandbox/processes/process-registry.ts'
import { checkDatabase, ofReceipts } from './database.ts'
import { checkExchange, ofRefusals } from './exchange.ts'
import { bad, type Finding, good, notNeeded, serviceFinding, warning } from './finding.ts'
import { checkDisk, checkJava, checkNode, checkPorts } from './machine.ts'

const LIMIT_MS = 15_000

/** Runs all checks concurrently, each with a limit. Changes nothing. @param running the running `up` */
export async function examine(settings: Settings, running: Endpoints | null): Promise<Finding[]> {
  const [usesKafka, usesDatabase] = [settings.isSet('KAFKA_BROKERS'), settings.isSet('DATABASE_URL')]
  const isSimulated = running !== null && /^(simulated|replay:)/.test(running.source)
  const ownKafka = notNeeded('Kafka', '`up` starts one: KAFKA_BROKERS is not set')
  const hasNone = settings.DATABASE_URL === NO_DATABASE
  const ownDatabase = hasNone
    ? notNeeded('database', 'only the archive keeps the rows: DATABASE_URL=none')
    : notNeeded('database', '`up` starts one: DATABASE_URL is not set')
  const checks: Readonly<Record<string, Check>> = {
    Node: checkNode,
    'Java, Maven': () => checkJava(!usesKafka || running !== null),
    Disk: () => checkDisk(settings),
    Ports: () => checkPorts(settings, running !== null),
    Kafka: () => (usesKafka ? checkKafka(settings) : [ownKafka]),
    database: () => (usesDatabase && !hasNone ? checkDatabase(settings) : [ownDatabase]),
    exchange: (signal) =>
      isSimulated
        ? [notNeeded('exchange', `${running.source}, started by \`up\``)]
        : checkExchange(settings, signal),
    ...(running === null ? {} : { services: () => checkServices(running) }),
  }
  const findings = await Promise.all(Object.entries(checks).map(([what, check]) => within(what, check)))
  return findings.flat()
}

type Check = (signal: AbortSignal) => Promise<Finding[]> | Finding[]

async function within(what: string, check: Check): Promise<Finding[]> {
  const signal = AbortSignal.timeout(LIMIT_MS)
  try {
    return await unlessAborted(Promise.resolve(check(signal)), signal)
  } catch (error) {
    if (signal.aborted)
      return [bad(what, `no answer within ${LIMIT_MS / 1000} s`, 'Check for a firewall on the way.')]
    const known = error instanceof ExchangeRefusal ? error.forPerson() : error
    const fix = isTapelineError(known) ? known.fix : (FIXES[what] ?? '')
    // describeError would repeat the message of its causes.
    const text = known instanceof Error && known.message !== '' ? known.message : describeError(known)
    return [bad(what, text, fix)]
  }
}

const FIXES: Readonly<Record<string, string>> = {
  database: 'Check DATABASE_URL and that a server listens there.',
  exchange: 'Check the network and BINANCE_REST_URL and BINANCE_WS_URL. Without the exchange: npm run demo',
}

async function checkServices({ ingestUrl, consumerUrl, archiveUrl }: Endpoints): Promise<Finding[]> {
  const services = [
    { what: 'ingestion', url: ingestUrl, statusOf: ingestionStatus },
    { what: 'consumer', url: consumerUrl, statusOf: consumerStatus },
    { what: 'archive', url: archiveUrl, statusOf: archiveStatus },
  ].filter(({ url }) => url !== '')
  const findings = services.map(async ({ what, url, statusOf }) => {
    const status = await statusOf(url)
    if (status === null) return [bad(what, `${url} does not answer`, 'See its log in DATA_DIR.')]
    const more = status.service === 'ingestion' ? [...ofReceipts(status), ...ofRefusals(status)] : []
    return [serviceFinding(what, url, status), ...more]
  })
  return (await Promise.all(findings)).flat()
}

/** Checks that the brokers are reachable and have the topics that `topics init` would create. */
export async function checkKafka(settings: Settings): Promise<Finding[]> {
  const reports = await inspectTopics(settings)
  return [good('Kafka', `${settings.KAFKA_BROKERS.join()} answers`), ...reports.map(ofTopic)]
}

function ofTopic({ name, partitions, state, differences }: TopicReport): Finding {
  const what = `topic ${name}`
  if (state === 'missing') return bad(what, 'is missing', 'Run: bin/tapeline topics init')
  if (state !== 'differs') return good(what, plural(partitions, 'partition'))
  const fix =
    'Tapeline never changes an existing topic: set KAFKA_PARTITIONS and the related settings to match, or change it with kafka-configs.'
  return warning(what, differences.join('; '), fix)
}
