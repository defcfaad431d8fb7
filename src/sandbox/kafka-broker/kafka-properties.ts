import { join } from 'node:path'

/** About 2 GB for the six large partitions: those of trades and book ticker. */
const RETENTION_BYTES_PER_PARTITION = 288 * 1024 * 1024
const SEGMENT_BYTES = 32 * 1024 * 1024

/** The escape character of java.util.Properties. */
const ESCAPE = '\\'

export interface KafkaPropertiesOptions {
  /** Relative to the broker's working directory; without a comma. */
  readonly logDir: string
  readonly port: number
  readonly controllerPort: number
  /** Takes precedence over all other properties. */
  readonly extra: Readonly<Record<string, string>>
}

/** server.properties of a single KRaft node on loopback. */
export function serverProperties({ logDir, port, controllerPort, extra }: KafkaPropertiesOptions): string {
  const properties = {
    'process.roles': 'broker,controller',
    'node.id': '1',
    'controller.quorum.voters': `1@127.0.0.1:${controllerPort}`,
    'controller.listener.names': 'CONTROLLER',
    listeners: `PLAINTEXT://127.0.0.1:${port},CONTROLLER://127.0.0.1:${controllerPort}`,
    'advertised.listeners': `PLAINTEXT://127.0.0.1:${port}`,
    'inter.broker.listener.name': 'PLAINTEXT',
    'listener.security.protocol.map': 'PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT',
    'log.dirs': logDir,
    'auto.create.topics.enable': 'false',
    'default.replication.factor': '1',
    'offsets.topic.replication.factor': '1',
    'offsets.topic.num.partitions': '3',
    'transaction.state.log.replication.factor': '1',
    'transaction.state.log.min.isr': '1',
    'transaction.state.log.num.partitions': '1',
    'share.coordinator.state.topic.replication.factor': '1',
    'share.coordinator.state.topic.min.isr': '1',
    'share.coordinator.state.topic.num.partitions': '1',
    'broker.session.timeout.ms': '3000',
    'broker.heartbeat.interval.ms': '500',
    'group.initial.rebalance.delay.ms': '0',
    'log.retention.hours': '24',
    'log.retention.bytes': String(RETENTION_BYTES_PER_PARTITION),
    'log.retention.check.interval.ms': '60000',
    'log.segment.bytes': String(SEGMENT_BYTES),
    ...extra,
  }
  return Object.entries(properties)
    .map(([name, value]) => `${name}=${value.replaceAll(ESCAPE, ESCAPE + ESCAPE)}\n`)
    .join('')
}

/** Logs warnings and errors to standard output, which is redirected to the log file. */
export const LOG4J_PROPERTIES = `rootLogger.level=warn
rootLogger.appenderRef.stdout.ref=stdout
appender.stdout.type=Console
appender.stdout.name=stdout
appender.stdout.layout.type=PatternLayout
appender.stdout.layout.pattern=%d{ISO8601}{UTC} %p %c{1}: %m%n%throwable{12}
`

export function kafkaPaths(dataDir: string) {
  return {
    data: join(dataDir, 'data'),
    unformatted: join(dataDir, 'data.new'),
    properties: join(dataDir, 'server.properties'),
    formatProperties: join(dataDir, 'format.properties'),
    process: join(dataDir, 'broker.json'),
    log4j: join(dataDir, 'log4j2.properties'),
    logs: join(dataDir, 'logs'),
    log: join(dataDir, 'logs', 'kafka.log'),
  }
}
