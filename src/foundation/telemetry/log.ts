import { type Logger as PinoLogger, pino, stdSerializers, stdTimeFunctions } from 'pino'

/** WARN: something failed and nothing is lost. ERROR: something is lost, or an operator must act. */
export type Logger = Pick<PinoLogger, 'debug' | 'info' | 'warn' | 'error'>

const LEVEL_NAMES: Record<string, string> = { '20': 'debug', '30': 'info', '40': 'warn', '50': 'error' }

/** Writes JSON lines to standard error, or readable ones to a terminal, before an exit can lose them. */
export function createLogger(name: string, level: string): Logger {
  const destination = process.stderr.isTTY
    ? { write: (line: string) => process.stderr.write(readable(line)) }
    : pino.destination({ dest: 2, sync: true })
  const options = { name, level, base: { name }, timestamp: stdTimeFunctions.isoTime }
  return pino({ ...options, serializers: { err: errorFields(level) } }, destination)
}

/** Returns the log fields of an error, with stacks only at the levels for debugging. */
export function errorFields(level: string): (error: unknown) => unknown {
  return (error) => {
    if (!(error instanceof Error)) return error
    const fields = stdSerializers.err(error)
    return level === 'debug' || level === 'trace' ? fields : withoutStack(fields)
  }
}

function withoutStack(fields: unknown): unknown {
  if (fields === null || typeof fields !== 'object') return fields
  const { stack: _, aggregateErrors, ...rest } = fields as Record<string, unknown>
  return Array.isArray(aggregateErrors)
    ? { ...rest, aggregateErrors: aggregateErrors.map(withoutStack) }
    : rest
}

function readable(line: string): string {
  const { level, time, name, msg, err, ...rest } = JSON.parse(line) as Record<string, unknown>
  const fields = Object.entries(rest).map(([key, value]) => `${key}=${JSON.stringify(value)}`)
  if (err !== null && typeof err === 'object') fields.push(`error=${Reflect.get(err, 'message')}`)
  const clock = String(time).slice(11, 23)
  return `${[clock, LEVEL_NAMES[String(level)] ?? level, name, msg, ...fields].join(' ')}\n`
}
