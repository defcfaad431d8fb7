import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createSecureContext } from 'node:tls'
import { describeError, TapelineError } from '../runtime/errors.ts'
import type { Settings } from '../settings/load.ts'

/** Settings of the connection to the brokers; the same for every client. */
export interface KafkaConnection {
  readonly brokers: readonly string[]
  /** PEM texts; null for plaintext connections. */
  readonly tls: { readonly ca?: string; readonly cert?: string; readonly key?: string } | null
  readonly sasl: {
    readonly mechanism: 'PLAIN' | 'SCRAM-SHA-256' | 'SCRAM-SHA-512'
    readonly username: string
    readonly password: string
  } | null
}

export interface TopicNames {
  readonly trades: string
  readonly bookTicker: string
  readonly depth: string
  readonly gaps: string
  readonly checkpoints: string
  readonly deadLetters: string
}

export function topicNames(settings: Settings): TopicNames {
  return {
    trades: settings.KAFKA_TRADES_TOPIC,
    bookTicker: settings.KAFKA_BOOK_TICKER_TOPIC,
    depth: settings.KAFKA_DEPTH_TOPIC,
    gaps: settings.KAFKA_GAPS_TOPIC,
    checkpoints: settings.KAFKA_CHECKPOINTS_TOPIC,
    deadLetters: settings.KAFKA_DEAD_LETTERS_TOPIC,
  }
}

/** The topic in which the archive announces what it has; null if retention does not depend on it. */
export function archivedDaysTopic(settings: Settings): string | null {
  return settings.RETENTION_ARCHIVED_ONLY ? settings.KAFKA_ARCHIVED_DAYS_TOPIC : null
}

/** @throws TapelineError `SETTINGS` if a certificate or key is unreadable, invalid or does not match */
export function kafkaConnection(settings: Settings): KafkaConnection {
  const {
    KAFKA_SASL_MECHANISM: mechanism,
    KAFKA_SASL_USERNAME: username,
    KAFKA_SASL_PASSWORD: password,
  } = settings
  return {
    brokers: settings.KAFKA_BROKERS,
    tls: settings.KAFKA_TLS ? tlsFiles(settings) : null,
    sasl:
      mechanism !== undefined && username !== undefined && password !== undefined
        ? { mechanism, username, password }
        : null,
  }
}

/** Checks the files at start: to a client a wrong file looks like an unreachable broker. */
function tlsFiles(settings: Settings): NonNullable<KafkaConnection['tls']> {
  const read = (name: 'KAFKA_TLS_CA' | 'KAFKA_TLS_CERT' | 'KAFKA_TLS_KEY') => {
    const path = settings[name]
    if (path === undefined) return undefined
    const where = `${name}=${path}`
    const text = refuse(`${where}: expected a readable PEM file`, () => readFileSync(path, 'utf8'))
    return { where, text }
  }
  const [ca, cert, key] = [read('KAFKA_TLS_CA'), read('KAFKA_TLS_CERT'), read('KAFKA_TLS_KEY')]
  for (const file of [ca, cert])
    if (file !== undefined)
      refuse(`${file.where}: expected a certificate in PEM`, () => new X509Certificate(file.text))
  if (cert !== undefined && key !== undefined)
    refuse(`${key.where}: expected the private key of ${cert.where}, in PEM, without a password`, () =>
      createSecureContext({ cert: cert.text, key: key.text }),
    )
  return {
    ...(ca && { ca: ca.text }),
    ...(cert && { cert: cert.text }),
    ...(key && { key: key.text }),
  }
}

/** @throws TapelineError `SETTINGS` with the problem, and the error of `work` as its cause */
function refuse<Result>(problem: string, work: () => Result): Result {
  try {
    return work()
  } catch (error) {
    throw new TapelineError('SETTINGS', `${problem} (${describeError(error)})`, {
      fix: 'Correct it in the environment or in .env.',
    })
  }
}
