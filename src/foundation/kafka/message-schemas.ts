import { z } from 'zod'
import {
  declarationOf,
  EVENT_TYPES,
  type EventType,
  INVALIDATED,
  isTradeType,
  ROLES,
  type Role,
} from '../market/event.ts'
import { LATE_SOURCES } from '../market/event-fields.ts'
import {
  decimalField,
  idField,
  levelsField,
  snapshotLimitField,
  symbolField,
  timeMsField,
  timeUsField,
} from '../market/fields.ts'
import { GAP } from '../market/gap.ts'
import { RECORDING } from '../market/recording.ts'
import { TIME_UNITS, type TimeUnit } from '../market/time-unit.ts'
import { schemaHeader } from './schema-of.ts'

/*
 * The messages of the topics, as readers may rely on them; docs/schemas and docs/asyncapi.yaml are
 * generated from this. Other fields may be present: the exchange adds some now and then, and they
 * are passed on.
 */

/** Appended by ingestion when the frame was received. */
const RECEIPT = {
  ingestion_timestamp: timeMsField.describe('Receipt, milliseconds since the Unix epoch.'),
  ingestion_timestamp_us: timeUsField.describe(
    'Receipt, microseconds since the Unix epoch; strictly increasing over all streams of a process, except when its clock is set, which the ledger records with the cause `clock`.',
  ),
}

const LATE = z
  .enum(LATE_SOURCES)
  .describe('`backfill`: from REST. `archive`: imported from a daily file of the exchange.')

/** A field as a schema. */
function fieldSchema(kind: (typeof ROLES)[Role]['kind'], unit: TimeUnit): z.ZodType {
  switch (kind) {
    case 'time':
      return unit === 'microsecond' ? timeUsField : timeMsField
    case 'symbol':
      return symbolField
    case 'decimal':
      return decimalField
    case 'flag':
      return z.boolean()
    case 'levels':
      return levelsField
    case 'limit':
      return snapshotLimitField
    default:
      return idField
  }
}

/** The valid forms of an event: from a stream or without event time, with trade ids or invalidated. */
function eventSchema(type: EventType, unit: TimeUnit): z.ZodType {
  const { layout, eventName } = declarationOf(type)
  const has = (kind: string) => layout.some(([, role]) => ROLES[role].kind === kind)
  const form = (isLate: boolean, isInvalidated: boolean) => {
    const shape: Record<string, z.ZodType> = {}
    for (const [name, role, about] of layout) {
      const { kind, about: text } = ROLES[role]
      if (kind === 'unused') continue
      if (kind === 'type') shape[name] = z.literal(eventName)
      else if (role === 'eventTime' && isLate) shape[name] = z.never().optional()
      else if (kind === 'tiles' && isInvalidated)
        shape[name] = z.literal(INVALIDATED).describe('The exchange has invalidated this row.')
      else shape[name] = fieldSchema(kind, unit).describe((about ?? text).replace('{unit}', unit))
    }
    const source = !isTradeType(type) ? {} : { source: isLate ? LATE : LATE.optional() }
    return z.looseObject({ ...shape, ...source, ...RECEIPT })
  }
  const forms = [false, true].flatMap((isLate) =>
    isLate && !isTradeType(type)
      ? []
      : [false, true].flatMap((isInvalidated) =>
          isInvalidated && !has('tiles') ? [] : [form(isLate, isInvalidated)],
        ),
  )
  const [only, ...others] = forms
  return only !== undefined && others.length === 0 ? only : z.union(forms)
}

/** Schemas by the value of the `schema` header; the newest of each event type is first. */
export const MESSAGES: Readonly<Record<string, z.ZodType>> = {
  ...Object.fromEntries(
    EVENT_TYPES.flatMap((type) =>
      TIME_UNITS.map((unit) => [schemaHeader(type, unit), eventSchema(type, unit)] as const),
    ),
  ),
  'gap/1': GAP,
  'recording/1': RECORDING,
}
