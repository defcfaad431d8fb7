import { z } from 'zod'
import { STREAM_TYPES } from '../market/event.ts'
import { SYMBOL } from '../market/fields.ts'

/*
 * One zod schema per kind of setting. Each takes the text of an environment variable; its message,
 * shown as "NAME=value: expected MESSAGE", says what is expected.
 */

export const integer = (min: number, max: number) =>
  z
    .string()
    .regex(/^-?\d{1,15}$/, `a whole number from ${min} to ${max}`)
    .transform(Number)
    .refine((value) => value >= min && value <= max, `a whole number from ${min} to ${max}`)

export const port = integer(1, 65535)

export const flag = z.enum(['true', 'false'], 'true or false').transform((text) => text === 'true')

export const oneOf = <const Values extends readonly [string, ...string[]]>(...values: Values) =>
  z.enum(values, values.join(' or '))

/** A URL of one of the protocols, without query, fragment or user; drops a trailing slash. */
export const baseUrl = (...protocols: string[]) =>
  z
    .string()
    .refine(
      (text) => {
        const url = URL.parse(text)
        if (url === null || !protocols.includes(url.protocol)) return false
        return url.search + url.hash + url.username + url.password === ''
      },
      `a URL that starts with ${protocols.map((name) => `${name}//`).join(' or ')}, without user, ? or #`,
    )
    .transform((text) => text.replace(/\/+$/, ''))

/** Base URLs, separated by commas. */
export const baseUrls = z.string().transform((text, context) => {
  const urls = list(text).map((one) => baseUrl('http:', 'https:').safeParse(one))
  const good = urls.flatMap(({ data }) => data ?? [])
  if (good.length > 0 && good.length === urls.length) return good
  context.addIssue('URLs separated by commas, like http://ingest-0:8080,http://ingest-1:8080')
  return z.NEVER
})

/** The modes with libpq's meaning. */
const SSL_MODES = ['disable', 'require', 'verify-ca', 'verify-full']

/** The value of `DATABASE_URL` where only the archive keeps the rows. */
export const NO_DATABASE = 'none'

export const databaseUrl = z.string().superRefine((text, context) => {
  const problem = text === NO_DATABASE ? null : databaseUrlProblem(text)
  if (problem !== null) context.addIssue(problem)
})

function databaseUrlProblem(text: string): string | null {
  const url = URL.parse(text)
  if (url === null || !/^postgres(ql)?:$/.test(url.protocol) || url.pathname.length < 2)
    return `a URL like postgres://user:password@host:5432/database, or ${NO_DATABASE}`
  const { searchParams: query } = url
  const mode = query.get('sslmode')
  if (mode !== null && !SSL_MODES.includes(mode))
    return `sslmode=${SSL_MODES.join(', ')}; libpq's other modes would fall back to plaintext`
  if (mode === 'verify-ca' && !query.has('sslrootcert')) return 'sslrootcert=FILE with sslmode=verify-ca'
  if (query.has('sslcert') !== query.has('sslkey')) return 'sslcert=FILE and sslkey=FILE, both or none'
  // Otherwise the rest of such a password would count as the path, and be shown.
  if (`${url.pathname}${url.search}${url.hash}`.includes('@'))
    return 'a password whose / ? # and @ are written as %2F %3F %23 and %40'
  return null
}

/** Upper-case symbols without repeats, or `*` for every spot symbol that trades. */
export const symbols = z
  .string()
  .transform((text) => list(text).map((symbol) => symbol.toUpperCase()))
  .refine(
    (names) => names.length > 0 && (names.join() === '*' || names.every((name) => SYMBOL.test(name))),
    'symbols separated by commas, like BTCUSDT,ETHUSDT, or * alone',
  )
  .transform((names) => [...new Set(names)])

export const streamTypes = z.string().transform((text, context) => {
  const names = new Set(list(text))
  const types = STREAM_TYPES.filter((type) => names.has(type))
  if (types.length > 0 && types.length === names.size) return types
  context.addIssue(`a comma list of ${STREAM_TYPES.join(', ')}`)
  return z.NEVER
})

/** `host:port` pairs; the port is 9092 by default. */
export const brokers = z
  .string()
  .transform((text) => list(text).map((broker) => (/:\d+$/.test(broker) ? broker : `${broker}:9092`)))
  .refine(
    (all) =>
      all.length > 0 && all.every((broker) => /^(\[[\da-fA-F:]+\]|[\w.-]+):([1-9]\d{0,4})$/.test(broker)),
    'host:port pairs separated by commas, like kafka1:9092,kafka2:9092',
  )

/** `index/count`: the instance's share of the symbols. */
export const shard = z
  .string()
  .regex(/^\d{1,4}\/[1-9]\d{0,3}$/, 'index/count with index below count, like 0/2')
  .transform((text) => {
    const [index = 0, count = 1] = text.split('/').map(Number)
    return { index, count }
  })
  .refine(({ index, count }) => index < count, 'index/count with index below count, like 0/2')

/** Kafka's own rule for topic names. */
export const topicName = z
  .string()
  .refine(
    (text) => /^[\w.-]{1,249}$/.test(text) && text !== '.' && text !== '..',
    'a topic name: letters, digits, dots, hyphens and underscores, at most 249',
  )

/** A name that Kafka accepts for a group or a user: anything without spaces. */
export const word = z.string().regex(/^\S{1,249}$/, 'a name without spaces')

/** Excludes the names of our simulated exchanges. */
export const venue = z
  .string()
  .regex(
    /^(?!simulated|replay|exchange-|cache$)[a-z][a-z0-9-]{0,31}$/,
    'a name such as binance or binance-us',
  )

export const path = z.string().regex(/^(?!-----BEGIN)[^\0\n]+$/, 'a path')

/** The path of a folder, or a bucket with an optional prefix; drops trailing slashes. */
export const archiveUrl = z
  .string()
  .regex(
    /^(?!-----BEGIN)((?!.*:\/\/)[^\0\n]+|s3:\/\/[\w][\w.-]{1,61}[\w](\/[^/\s?#]+)*\/*)$/,
    'the path of a folder, or s3://bucket/prefix',
  )
  .transform((text) => text.replace(/(?<=[^/])\/+$/, ''))

/** Valid in an HTTP header; otherwise the error about the header would show the key. */
export const apiKey = z.string().regex(/^[\x21-\x7e]{1,256}$/, 'a key without spaces')

export const secret = z.string().min(1, 'a text that is not empty')

function list(text: string): string[] {
  return text
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '')
}
