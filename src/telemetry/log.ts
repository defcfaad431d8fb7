import { type Logger as PinoLogger, pino, stdTimeFunctions } from 'pino'

/**
 * WARN: something went wrong and nothing is lost. ERROR: something is lost, or a person is needed.
 * A service that is well says nothing after its start.
 */
export type Logger = Pick<PinoLogger, 'debug' | 'info' | 'warn' | 'error'>

const LEVEL_NAMES: Record<string, string> = { '20': 'debug', '30': 'info', '40': 'warn', '50': 'error' }

/**
 * A logger that writes JSON lines to standard error, or short readable lines where that is a terminal.
 * Writing is synchronous: the last line before an exit is never the one that is missing.
 */
export function createLogger(name: string, level: string): Logger {
  const destination = process.stderr.isTTY
    ? { write: (line: string) => process.stderr.write(readable(line)) }
    : pino.destination({ dest: 2, sync: true })
  return pino({ name, level, base: { name }, timestamp: stdTimeFunctions.isoTime }, destination)
}

function readable(line: string): string {
  const { level, time, name, msg, err, ...rest } = JSON.parse(line) as Record<string, unknown>
  const fields = Object.entries(rest).map(([key, value]) => `${key}=${JSON.stringify(value)}`)
  if (err !== null && typeof err === 'object') fields.push(`error=${Reflect.get(err, 'message')}`)
  const clock = String(time).slice(11, 23)
  return `${[clock, LEVEL_NAMES[String(level)] ?? level, name, msg, ...fields].join(' ')}\n`
}
