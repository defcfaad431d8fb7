/**
 * `docs/schemas/*.json` and `docs/asyncapi.yaml`, made of the definition that the code uses: `scripts/with-node
 * scripts/message-schemas.ts` writes them, `npm run check` compares.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { stringify } from 'yaml'
import { z } from 'zod'
import { HEADER } from '../src/foundation/kafka/headers.ts'
import { MESSAGES } from '../src/foundation/market/message-schemas.ts'
import { RECORDING_KEY } from '../src/foundation/market/recording.ts'
import { DEFINITIONS } from '../src/foundation/settings/definitions.ts'

const DOCS = join(resolve(import.meta.dirname, '..'), 'docs')

type Schema = keyof typeof MESSAGES

const SCHEMAS = Object.keys(MESSAGES) as Schema[]

const ABOUT: Readonly<Record<Schema, string>> = {
  'trade/2': 'A trade: the exchange’s own object, byte for byte, and when it was received.',
  'trade/1': 'The same with times in milliseconds (TIME_UNIT=millisecond).',
  'aggTrade/2': 'An aggregate trade, likewise. It covers the trades f to l, and its quantity is their sum.',
  'aggTrade/1': 'The same with times in milliseconds (TIME_UNIT=millisecond).',
  'bookTicker/1': 'The best bid and ask, likewise. It has no time but that of its receipt.',
  'gap/1':
    'A revision of a row of the ledger: what is missing, why, and what became of it. The highest revision of a gap_id counts.',
  'recording/1': 'What an ingestion process records from a moment on.',
}

const KEYS: Partial<Record<Schema, string>> = { 'gap/1': 'gap_id', 'recording/1': RECORDING_KEY }

/** The latest of a name has no number. */
function fileOf(schema: Schema): string {
  return /^(trade|aggTrade).1$/.test(schema) ? schema.replace('/', '-') : schema.replace(/.\d$/, '')
}

function schemas(): Record<string, string> {
  return Object.fromEntries(
    SCHEMAS.map((name) => {
      const schema = {
        $schema: 'https://json-schema.org/draft/2020-12/schema',
        title: name,
        description: ABOUT[name],
        ...z.toJSONSchema(MESSAGES[name], { target: 'draft-2020-12', io: 'input' }),
      }
      return [`schemas/${fileOf(name)}.json`, `${JSON.stringify(schema, null, 2)}\n`]
    }),
  )
}

const text = { type: 'string' } as const

function message(name: Schema) {
  const epoch = /^(trade|aggTrade)/.test(name)
  return {
    name: fileOf(name),
    summary: ABOUT[name],
    contentType: 'application/json',
    headers: {
      type: 'object',
      properties: {
        [HEADER.schema]: {
          const: name,
          description: 'Rises when a reader would have to change.',
        },
        ...(epoch
          ? {
              [HEADER.epoch]: {
                type: 'string',
                pattern: '^\\d{1,10}$',
                description: 'How often the exchange had restarted the ids, at most 1023; absent means 0.',
              },
            }
          : {}),
        ...(name === 'bookTicker/1'
          ? {
              [HEADER.outage]: {
                ...text,
                description:
                  'Of the first one after an outage: the row of binance.gaps that says so, as JSON.',
              },
              [HEADER.clockAhead]: {
                type: 'string',
                pattern: '^(-?\\d+)?$',
                description:
                  "Beside outage: by how many milliseconds the clock of its receipt was ahead of the exchange's; empty where that was not known.",
              },
            }
          : {}),
      },
    },
    payload: { $ref: `./schemas/${fileOf(name)}.json` },
    bindings: {
      kafka: { key: { type: 'string', description: KEYS[name] ?? 'Symbol, upper-case.' } },
    },
  }
}

const DEAD_LETTER = {
  name: 'deadLetter',
  contentType: 'application/octet-stream',
  summary: 'Key and value are those of the original; null stays null.',
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

function channel(address: string | undefined, description: string, messages: readonly Schema[]) {
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
  return `# Made by scripts/message-schemas.ts of the definition that the code uses.\n${stringify(
    {
      asyncapi: '3.0.0',
      info: {
        title: 'Tapeline',
        version: '1',
        description:
          'Binance market data in Kafka, keyed by symbol. Addresses are the defaults of the settings KAFKA_…_TOPIC. Fields that are not named may be there and are to be ignored.',
        license: { name: 'Apache-2.0' },
      },
      defaultContentType: 'application/json',
      channels: {
        trades: channel(
          address('KAFKA_TRADES_TOPIC'),
          'Trades and aggregate trades; those of a symbol are in one partition, in the order of receipt. Backfilled ones come late.',
          ['trade/2', 'trade/1', 'aggTrade/2', 'aggTrade/1'],
        ),
        bookTicker: channel(address('KAFKA_BOOK_TICKER_TOPIC'), 'Best bid and ask, likewise.', [
          'bookTicker/1',
        ]),
        deadLetters: {
          address: address('KAFKA_DEAD_LETTERS_TOPIC'),
          description: 'Messages that could not be stored, byte for byte. Kept for ever.',
          messages: { deadLetter: { $ref: '#/components/messages/deadLetter' } },
        },
        checkpoints: {
          address: address('KAFKA_CHECKPOINTS_TOPIC'),
          description: 'What ingestion knows, for its own next start; compacted. Its inside may change.',
          messages: { checkpoint: { $ref: '#/components/messages/checkpoint' } },
        },
        gaps: channel(address('KAFKA_GAPS_TOPIC'), 'The ledger of what is missing. Kept for ever.', [
          'gap/1',
          'recording/1',
        ]),
      },
      operations: Object.fromEntries(
        ['trades', 'bookTicker', 'gaps'].flatMap((name) => [
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

function files(): Record<string, string> {
  return { ...schemas(), 'asyncapi.yaml': asyncApi() }
}

export function areMessageSchemasCurrent(): boolean {
  const old = Object.entries(files()).filter(
    ([name, text]) => readFileSync(join(DOCS, name), 'utf8') !== text,
  )
  if (old.length > 0) console.log('Run: scripts/with-node scripts/message-schemas.ts')
  return old.length === 0
}

if (import.meta.main) {
  for (const [name, text] of Object.entries(files())) {
    mkdirSync(dirname(join(DOCS, name)), { recursive: true })
    writeFileSync(join(DOCS, name), text)
  }
}
