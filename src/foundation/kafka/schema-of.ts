import { declarationOf, EVENT_TYPES, type EventType, hasTimes } from '../market/event.ts'
import type { Fields } from '../market/payload.ts'
import type { TimeUnit } from '../market/time-unit.ts'
import { TapelineError } from '../runtime/errors.ts'

/** Longer values than an event's few hundred bytes are not parsed. Bounds the depth of the JSON. */
export const VALUE_MAX_BYTES = 512 << 10

export type SchemaName = EventType | 'gap' | 'recording'

/** A number rises with an incompatible change. Version 2 of an event has its times in microseconds. */
export const LATEST_SCHEMA = {
  ...(Object.fromEntries(EVENT_TYPES.map((type) => [type, hasTimes(type) ? 2 : 1])) as Record<
    EventType,
    1 | 2
  >),
  gap: 1,
  recording: 1,
} as const

/** @param unit of the times of an event, if it has any; the ledger uses milliseconds */
export function schemaHeader(name: SchemaName, unit: TimeUnit): string {
  return `${name}/${unit === 'microsecond' ? LATEST_SCHEMA[name] : 1}`
}

export interface MessageSchema {
  readonly name: SchemaName
  /** The unit of an event's times; undefined if only their digits tell it. */
  readonly unit: TimeUnit | undefined
}

/**
 * Returns the schema that the header names; without one the payload decides. Null if not `allowed`.
 * @throws TapelineError `SCHEMA` for a newer schema: such a message is valid and must not be
 * skipped
 */
export function schemaOf(
  allowed: readonly SchemaName[],
  header: string | null,
  data: Fields,
): MessageSchema | null {
  if (header === null) {
    const isLedger = allowed[0] === 'gap'
    const shown =
      isLedger || allowed.length === 1 ? allowed[0] : allowed.find((name) => nameIn(name) === data['e'])
    return shown === undefined ? null : { name: shown, unit: undefined }
  }
  const slash = header.indexOf('/')
  const name = allowed.find((one) => one === header.slice(0, slash))
  const version = Number(header.slice(slash + 1))
  if (name === undefined || !Number.isInteger(version) || version < 1) return null
  if (version > LATEST_SCHEMA[name]) {
    throw new TapelineError(
      'SCHEMA',
      `A message has schema ${header}, this program supports ${name}/${LATEST_SCHEMA[name]}`,
      { fix: 'Upgrade the readers (the consumer, or the package) before ingestion; nothing was skipped.' },
    )
  }
  return { name, unit: version === 1 ? 'millisecond' : 'microsecond' }
}

/** The value of an event's field `e`. */
function nameIn(name: SchemaName): string | null {
  return name === 'gap' || name === 'recording' ? null : declarationOf(name).eventName
}
