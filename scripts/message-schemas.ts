/** Renders the JSON Schema of each message and the AsyncAPI file from the definition that the code uses. */
import { stringify } from 'yaml'
import { z } from 'zod'
import { HEADER } from '../src/foundation/kafka/headers.ts'
import { MESSAGES } from '../src/foundation/kafka/message-schemas.ts'
import { schemaHeader } from '../src/foundation/kafka/schema-of.ts'
import { EVENT_DECLARATIONS, EVENT_TYPES, type EventTopic, hasEpoch } from '../src/foundation/market/event.ts'
import { RECORDING_KEY } from '../src/foundation/market/recording.ts'
import { TIME_UNITS } from '../src/foundation/market/time-unit.ts'
import { DEFINITIONS } from '../src/foundation/settings/definitions.ts'

const SCHEMAS = Object.keys(MESSAGES)
const EVENT_TYPE_OF = new Map(
  EVENT_TYPES.flatMap((type) => TIME_UNITS.map((unit) => [schemaHeader(type, unit), type] as const)),
)

function aboutOf(schema: string): string {
  const type = EVENT_TYPE_OF.get(schema)
  if (type !== undefined) {
    const isLatest = schema === schemaHeader(type, 'microsecond')
    return isLatest
      ? EVENT_DECLARATIONS[type].about
      : 'The same with times in milliseconds (TIME_UNIT=millisecond).'
  }
  return schema === 'gap/1'
    ? 'A revision of a row of the ledger: what is missing, the cause and the outcome. The highest revision of a gap_id counts.'
    : 'What an ingestion process records, and since when.'
}

const KEYS: Readonly<Record<string, string>> = { 'gap/1': 'gap_id', 'recording/1': RECORDING_KEY }

/** The latest version of a schema has no number in its file name. */
function fileOf(schema: string): string {
  const type = EVENT_TYPE_OF.get(schema)
  const isLatest = type === undefined || schema === schemaHeader(type, 'microsecond')
  return isLatest ? schema.replace(/.\d$/, '') : schema.replace('/', '-')
}

/** The schemas of the events in a topic. */
function eventSchemas(topic: EventTopic): string[] {
  return SCHEMAS.filter((schema) => {
    const type = EVENT_TYPE_OF.get(schema)
    return type !== undefined && EVENT_DECLARATIONS[type].topic === topic
  })
}

function schemas(): Record<string, string> {
  return Object.fromEntries(
    Object.entries(MESSAGES).map(([name, message]) => {
      const schema = {
        $schema: 'https://json-schema.org/draft/2020-12/schema',
        title: name,
        description: aboutOf(name),
        ...z.toJSONSchema(message, { target: 'draft-2020-12', io: 'input' }),
      }
      return [`docs/schemas/${fileOf(name)}.json`, `${JSON.stringify(schema, null, 2)}\n`]
    }),
  )
}

const text = { type: 'string' } as const

function message(name: string) {
  const type = EVENT_TYPE_OF.get(name)
  const epoch = type !== undefined && hasEpoch(type)
  return {
    name: fileOf(name),
    summary: aboutOf(name),
    contentType: 'application/json',
    headers: {
      type: 'object',
      properties: {
        [HEADER.schema]: {
          const: name,
          description: 'Increases when readers have to change.',
        },
        ...(epoch
          ? {
              [HEADER.epoch]: {
                type: 'string',
                pattern: '^\\d{1,10}$',
                description:
                  'Number of times the exchange had restarted the ids, at most 1023; absent means 0.',
              },
            }
          : {}),
        ...(name === 'bookTicker/1'
          ? {
              [HEADER.outage]: {
                ...text,
                description:
                  'Only on the first message after an outage: the row of binance.gaps for the outage, as JSON.',
              },
              [HEADER.clockAhead]: {
                type: 'string',
                pattern: '^(-?\\d+)?$',
                description:
                  "Present together with outage, and on the first quote of a symbol: milliseconds by which the receipt clock was ahead of the exchange's; empty if unknown.",
              },
            }
          : {}),
      },
    },
    payload: { $ref: `./${fileOf(name)}.json` },
    bindings: {
      kafka: { key: { type: 'string', description: KEYS[name] ?? 'Symbol, upper-case.' } },
    },
  }
}

const DEAD_LETTER = {
  name: 'deadLetter',
  contentType: 'application/octet-stream',
  summary: 'Key and value of the original message; null stays null.',
  headers: {
    type: 'object',
    required: [HEADER.origin, HEADER.reason, HEADER.time],
    properties: {
      [HEADER.origin]: { enum: ['ingestion', 'consumer'] },
      [HEADER.reason]: text,
      [HEADER.time]: { ...text, description: 'Milliseconds since the Unix epoch.' },
      [HEADER.originTopic]: text,
      [HEADER.originTopicId]: text,
      [HEADER.originPartition]: text,
      [HEADER.originOffset]: text,
      [HEADER.originHeaders]: { ...text, description: 'JSON of [[name, value], …].' },
    },
  },
  payload: { description: 'Any bytes.' },
}

function channel(address: string | undefined, description: string, messages: readonly string[]) {
  return {
    address,
    description,
    messages: Object.fromEntries(
      messages.map((name) => [fileOf(name), { $ref: `#/components/messages/${fileOf(name)}` }]),
    ),
  }
}

function asyncApi(): string {
  const address = (name: keyof typeof DEFINITIONS) => DEFINITIONS[name].fallback
  return `# Generated by scripts/generate.ts from the definition that the code uses.\n${stringify(
    {
      asyncapi: '3.0.0',
      info: {
        title: 'Tapeline',
        version: '1',
        description:
          'Binance market data in Kafka, keyed by symbol. Addresses are the defaults of the settings KAFKA_…_TOPIC. Readers must ignore fields that are not listed.',
        license: { name: 'Apache-2.0' },
      },
      defaultContentType: 'application/json',
      channels: {
        trades: channel(
          address('KAFKA_TRADES_TOPIC'),
          'Trades and aggregate trades. Those of a symbol are in one partition, in the order of receipt; backfilled ones arrive late.',
          eventSchemas('trades'),
        ),
        bookTicker: channel(
          address('KAFKA_BOOK_TICKER_TOPIC'),
          'Best bid and ask, in the same order.',
          eventSchemas('bookTicker'),
        ),
        depth: channel(
          address('KAFKA_DEPTH_TOPIC'),
          'Changes of order books, and snapshots of them, in the same order. Only if STREAM_TYPES contains depth.',
          eventSchemas('depth'),
        ),
        deadLetters: {
          address: address('KAFKA_DEAD_LETTERS_TOPIC'),
          description: 'Messages that could not be stored, byte for byte. Never deleted.',
          messages: { deadLetter: { $ref: '#/components/messages/deadLetter' } },
        },
        checkpoints: {
          address: address('KAFKA_CHECKPOINTS_TOPIC'),
          description: 'State that ingestion restores at its next start; compacted. The format may change.',
          messages: { checkpoint: { $ref: '#/components/messages/checkpoint' } },
        },
        gaps: channel(address('KAFKA_GAPS_TOPIC'), 'The ledger of missing data. Never deleted.', [
          'gap/1',
          'recording/1',
        ]),
      },
      operations: Object.fromEntries(
        ['trades', 'bookTicker', 'depth', 'gaps'].flatMap((name) => [
          [
            `send-${name}`,
            {
              action: 'send',
              summary: name === 'gaps' ? 'Ingestion, and requests to reopen a gap' : 'Ingestion',
              channel: { $ref: `#/channels/${name}` },
            },
          ],
          [
            `receive-${name}`,
            {
              action: 'receive',
              summary: 'The consumer, and any reader',
              channel: { $ref: `#/channels/${name}` },
            },
          ],
        ]),
      ),
      components: {
        messages: {
          ...Object.fromEntries(SCHEMAS.map((name) => [fileOf(name), message(name)])),
          deadLetter: DEAD_LETTER,
          checkpoint: { name: 'checkpoint', contentType: 'application/json', payload: { type: 'object' } },
        },
      },
    },
    { lineWidth: 110 },
  )}`
}

export function messageSchemas(): Record<string, string> {
  return { ...schemas(), 'docs/schemas/asyncapi.yaml': asyncApi() }
}
