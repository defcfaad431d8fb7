import { readFileSync } from 'node:fs'
import { describeError, TapelineError } from '../errors.ts'
import type { Settings } from '../settings/load.ts'

/** The five topics, by what they hold. */
export interface TopicNames {
  readonly trades: string
  readonly bookTicker: string
  readonly gaps: string
  readonly checkpoints: string
  readonly deadLetters: string
}

/** How to reach the brokers; the same for every client. */
export interface KafkaConnection {
  readonly brokers: readonly string[]
  /** PEM texts; null for plain text connections. */
  readonly tls: { readonly ca?: string; readonly cert?: string; readonly key?: string } | null
  readonly sasl: {
    readonly mechanism: 'PLAIN' | 'SCRAM-SHA-256' | 'SCRAM-SHA-512'
    readonly username: string
    readonly password: string
  } | null
}

export function topicNames(settings: Settings): TopicNames {
  return {
    trades: settings.KAFKA_TRADES_TOPIC,
    bookTicker: settings.KAFKA_BOOK_TICKER_TOPIC,
    gaps: settings.KAFKA_GAPS_TOPIC,
    checkpoints: settings.KAFKA_CHECKPOINTS_TOPIC,
    deadLetters: settings.KAFKA_DEAD_LETTERS_TOPIC,
  }
}

/** @throws TapelineError `SETTINGS` when a certificate or key file cannot be read */
export function kafkaConnection(settings: Settings): KafkaConnection {
  const {
    KAFKA_SASL_MECHANISM: mechanism,
    KAFKA_SASL_USERNAME: username,
    KAFKA_SASL_PASSWORD: password,
  } = settings
  return {
    brokers: settings.KAFKA_BROKERS,
    tls: settings.KAFKA_TLS
      ? {
          ...pem('ca', 'KAFKA_TLS_CA', settings.KAFKA_TLS_CA),
          ...pem('cert', 'KAFKA_TLS_CERT', settings.KAFKA_TLS_CERT),
          ...pem('key', 'KAFKA_TLS_KEY', settings.KAFKA_TLS_KEY),
        }
      : null,
    sasl:
      mechanism !== undefined && username !== undefined && password !== undefined
        ? { mechanism, username, password }
        : null,
  }
}

function pem<Field extends string>(
  field: Field,
  name: string,
  path: string | undefined,
): Partial<Record<Field, string>> {
  if (path === undefined) return {}
  try {
    const text: Partial<Record<Field, string>> = {}
    text[field] = readFileSync(path, 'utf8')
    return text
  } catch (error) {
    throw new TapelineError(
      'SETTINGS',
      `${name}=${path}: expected a PEM file that can be read (${describeError(error)})`,
    )
  }
}
