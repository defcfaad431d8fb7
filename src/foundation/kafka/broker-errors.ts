import { NetworkError, UserError } from '@platformatic/kafka'
import {
  type CertificateFault,
  certificateFault,
  describeError,
  isTapelineError,
  TapelineError,
} from '../runtime/errors.ts'
import { errorsWithin } from './client.ts'
import type { KafkaConnection } from './config.ts'

/**
 * A kind of refusal, recognised by the code of OpenSSL, the client or the broker, never by text.
 *
 * Most become `ACCESS`: retrying does not help until an operator acts. Those that also occur while
 * a broker shuts down become `KAFKA`, and the caller retries.
 */
interface Refusal {
  readonly what: string
  readonly fix: string
  readonly isRetried?: true
}

const BY_CERTIFICATE: Readonly<Record<CertificateFault, Refusal>> = {
  untrusted: {
    what: 'the certificate of the broker is not signed by a trusted authority',
    fix: 'Set KAFKA_TLS_CA to the PEM file of the authority that signed it.',
  },
  outdated: {
    what: 'the certificate of the broker is not valid at this time',
    fix: 'Renew it on the broker, or set the clock of this machine.',
  },
  'other host': {
    what: 'the certificate of the broker is for another host',
    fix: 'In KAFKA_BROKERS, and in advertised.listeners of the broker, use a host name that the certificate has.',
  },
}

const CLIENT_CERTIFICATE: Refusal = {
  what: 'the broker does not accept the certificate of this client',
  fix: 'Set KAFKA_TLS_CERT and KAFKA_TLS_KEY to a pair that the authority of the broker has signed.',
}
const NO_TLS: Refusal = {
  what: 'the broker ended the TLS handshake',
  fix: 'If it uses plaintext, set KAFKA_TLS=false, or set KAFKA_BROKERS to its TLS listener.',
  isRetried: true,
}
const NEEDS_TLS: Refusal = {
  what: 'the broker speaks TLS and this client does not',
  fix: 'Set KAFKA_TLS=true, and KAFKA_TLS_CA if you use your own certificate authority.',
}
const GRANT = 'Grant it with an ACL; docs/security.md lists what each service needs.'
const NO_TOPIC_RIGHT: Refusal = { what: 'this user lacks a right on a topic', fix: GRANT }
const NO_SHARED_VERSION: Refusal = {
  what: 'the brokers and this version of Tapeline have no version of a request in common',
  fix: 'Upgrade the older of the two; docs/support.md names the supported versions of Kafka.',
  isRetried: true,
}

const BY_CODE: Readonly<Record<string, Refusal>> = {
  ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED: CLIENT_CERTIFICATE,
  ERR_SSL_SSLV3_ALERT_BAD_CERTIFICATE: CLIENT_CERTIFICATE,
  ERR_SSL_SSLV3_ALERT_CERTIFICATE_UNKNOWN: CLIENT_CERTIFICATE,
  ERR_SSL_TLSV1_ALERT_UNKNOWN_CA: CLIENT_CERTIFICATE,
  ERR_SSL_WRONG_VERSION_NUMBER: NO_TLS,
  SASL_AUTHENTICATION_FAILED: {
    what: 'the broker rejects this user or password',
    fix: 'Check KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD and KAFKA_SASL_MECHANISM.',
  },
  UNSUPPORTED_SASL_MECHANISM: {
    what: 'the broker does not support this SASL mechanism',
    fix: 'Set KAFKA_SASL_MECHANISM to one that it has enabled.',
  },
  ILLEGAL_SASL_STATE: {
    what: 'this listener of the broker has no SASL login',
    fix: 'Unset KAFKA_SASL_MECHANISM, or set KAFKA_BROKERS to its SASL listener.',
  },
  TOPIC_AUTHORIZATION_FAILED: NO_TOPIC_RIGHT,
  GROUP_AUTHORIZATION_FAILED: { what: 'this user lacks READ on the consumer group', fix: GRANT },
  // Kafka requires this of an idempotent producer.
  CLUSTER_AUTHORIZATION_FAILED: {
    what: 'this user has neither WRITE on a topic nor IDEMPOTENT_WRITE on the cluster',
    fix: GRANT,
  },
  PLT_KFK_UNSUPPORTED_API: NO_SHARED_VERSION,
}

/** Returns the security problem in an error, or null. @param where like `Kafka at kafka:9092` */
export function kafkaSecurityError(error: unknown, where: string): TapelineError | null {
  for (const one of errorsWithin(error)) {
    if (isTapelineError(one)) return one.code === 'ACCESS' ? one : null
    const refusal = BY_CODE[codeOf(one, 'apiId')] ?? BY_CODE[codeOf(one, 'code')] ?? byKind(one)
    if (refusal !== undefined) return asError(refusal, where, error, detailOf(refusal, one, error))
  }
  return null
}

/** @param whole the error that contains `error` */
function detailOf(refusal: Refusal, error: Error, whole: unknown): string {
  const reason = Reflect.get(error, 'reason')
  if (refusal === NO_TOPIC_RIGHT) return refusedTopics(whole)
  if (refusal === BY_CERTIFICATE['other host'] && typeof reason === 'string') return ` (${reason.trim()})`
  if (refusal !== NO_SHARED_VERSION) return ''
  const [min, max] = [Reflect.get(error, 'minVersion'), Reflect.get(error, 'maxVersion')]
  const theirs = min === undefined ? '' : ` The brokers support ${min} to ${max}.`
  return ` (${error.message}${theirs})`
}

/** Describes an error of Kafka's client in one line, with the fix if one is known. */
export function describeKafkaError(error: unknown): string {
  const refusal = isTapelineError(error) ? error : kafkaSecurityError(error, 'Kafka')
  return refusal === null ? describeError(error) : `${refusal.message}. ${refusal.fix}`
}

/** Describes the error of a partition likewise, by Kafka's error name. */
export function describePartitionError(topic: string, name: string): string {
  const refusal = BY_CODE[name]
  return refusal === undefined ? name : `${refusal.what}: ${topic}. ${refusal.fix}`
}

/** Recognises a certificate refused here, and a broker that closes the connection on a TLS hello. */
function byKind(error: Error): Refusal | undefined {
  const fault = certificateFault(codeOf(error, 'code'))
  if (fault !== null) return BY_CERTIFICATE[fault]
  if (codeOf(error, 'code') !== 'PLT_KFK_USER') return undefined
  if (error.cause instanceof Error && codeOf(error.cause, 'code') === 'ECONNRESET') return NO_TLS
  return undefined
}

/**
 * Like {@link kafkaSecurityError}, with the settings of the connection. A broker that closes the
 * connection gives no reason, but may require what is not set here. Do not use it for requests
 * about single topics: for a missing topic the client has the same code as for missing TLS.
 * @returns null for any other error
 */
export function kafkaConnectionError(
  error: unknown,
  { tls, sasl }: KafkaConnection,
  where: string,
): TapelineError | null {
  const refusal = kafkaSecurityError(error, where)
  if (refusal !== null) return refusal
  const all = errorsWithin(error)
  if (tls === null && all.some((one) => one instanceof UserError)) return asError(NEEDS_TLS, where, error)
  const closed = all.some((one) => one instanceof NetworkError && isLeaf(one))
  const wanted = [
    tls === null && 'TLS (KAFKA_TLS=true)',
    tls !== null && tls.cert === undefined && 'a client certificate (KAFKA_TLS_CERT and KAFKA_TLS_KEY)',
    sasl === null && 'a login (KAFKA_SASL_MECHANISM)',
  ].filter((setting) => setting !== false)
  if (!closed || wanted.length === 0) return null
  return new TapelineError('KAFKA', `${where}: the broker closed the connection`, {
    fix: `If it persists, the broker may require ${wanted.join(' or ')}.`,
    cause: error,
  })
}

function isLeaf(error: Error): boolean {
  return error.cause === undefined && Reflect.get(error, 'errors') === undefined
}

function asError(
  { what, fix, isRetried }: Refusal,
  where: string,
  cause: unknown,
  detail = '',
): TapelineError {
  return new TapelineError(isRetried ? 'KAFKA' : 'ACCESS', `${where}: ${what}${detail}`, { fix, cause })
}

export const TOPIC_AUTHORIZATION_FAILED = 29

/** Returns the refused names in an answer of the broker, as `: a, b`; empty without any. */
function refusedTopics(error: unknown): string {
  const names = new Set<string>()
  const look = (value: unknown, within: string) => {
    if (value === null || typeof value !== 'object') return
    const named: unknown = Reflect.get(value, 'name') ?? Reflect.get(value, 'resourceName')
    const name = typeof named === 'string' ? named : within
    if (Reflect.get(value, 'errorCode') === TOPIC_AUTHORIZATION_FAILED && name !== '') names.add(name)
    for (const inner of Object.values(value))
      if (Array.isArray(inner)) for (const one of inner) look(one, name)
  }
  for (const one of errorsWithin(error)) look(Reflect.get(one, 'response'), '')
  return names.size === 0 ? '' : `: ${[...names].join(', ')}`
}

function codeOf(error: Error, property: 'apiId' | 'code'): string {
  const code: unknown = Reflect.get(error, property)
  return typeof code === 'string' ? code : ''
}
