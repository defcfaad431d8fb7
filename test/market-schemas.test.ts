import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { test } from 'node:test'
import { Ajv2020 } from 'ajv/dist/2020.js'
import fc from 'fast-check'
import { parse } from 'yaml'
import { Decoder } from '../src/foundation/kafka/message-decoder.ts'
import { MESSAGES } from '../src/foundation/kafka/message-schemas.ts'
import { declarationOf, EVENT_TYPES } from '../src/foundation/market/event.ts'
import { GAP_CAUSE_NAMES, GAP_CAUSES } from '../src/foundation/market/gap-causes.ts'
import { readEvent } from '../src/tools/client/event.ts'
import { eventValue, gapRow, record } from './support/records.ts'

const DOCS = join(resolve(import.meta.dirname, '..'), 'docs')

const ajv = new Ajv2020({ strict: false })
const validators = Object.fromEntries(
  readdirSync(join(DOCS, 'schemas'))
    .filter((name) => name.endsWith('.json'))
    .map((name) => {
      const schema = JSON.parse(readFileSync(join(DOCS, 'schemas', name), 'utf8'))
      return [schema.title, ajv.compile(schema)]
    }),
)

/** Valid and invalid values for a field, of every kind. */
const anything = fc.oneof(
  fc.constantFrom<unknown>(undefined, null, true, false, 0, 1, -1, 2 ** 53, 1.5, [], {}),
  fc.constantFrom('', '0', '1.5', '.5', '1.', 'NaN', '1e3', '-1', '123456789012.12345678'),
  fc.constantFrom('1234567890123', '0.123456789', 'trade', 'aggTrade', 'backfill', 'archive', 'stream'),
  fc.constantFrom('BTCUSDT', 'btcusdt', 'ΑΒΓ', '币安', 'A B', 'A\0'),
  fc.constantFrom(1483228800000, 1483228799999, 4102444799999, 4102444800000),
  fc.constantFrom<unknown>(1723161255343, 1723161255343999, 1723161255, 4102444799999999, 4102444800000000),
  fc.constantFrom<unknown>(
    5000,
    5001,
    [['1', '2']],
    [['1', '2', '3']],
    [['1']],
    [['1', 2]],
    [['-1', '2']],
    [null],
  ),
  fc.integer(),
  fc.string(),
)

const OTHERS = ['ingestion_timestamp_us', 'source', 'X', 'E']

for (const [schema, message] of Object.entries(MESSAGES)) {
  const type = EVENT_TYPES.find((one) => schema.startsWith(`${one}/`))
  if (type === undefined) continue
  const { topic, layout } = declarationOf(type)
  const names = [...new Set([...layout.map(([name]) => name), ...OTHERS])]
  test(`messages are stored exactly if ${schema} accepts them`, () => {
    const changes = fc.dictionary(fc.constantFrom(...names), anything, { maxKeys: 3 })
    fc.assert(
      fc.property(changes, (fields) => {
        const times = { E: 1723161255343123, T: 1723161255342999 }
        const value = eventValue(type, { ...(schema.endsWith('/2') ? times : {}), ...fields })
        const data: Record<string, unknown> = JSON.parse(value.toString())
        const reason = new Decoder().decode(topic, record(value, null, { schema }))
        // A schema cannot express that the first is not above the last, or which letters are
        // upper-case.
        if (reason === 'f is above l' || reason === 'U is above u') return
        const isLower = typeof data['s'] === 'string' && data['s'] !== data['s'].toUpperCase()
        const stored = reason === null
        assert.equal(message.safeParse(data).success, stored, `zod and ${reason}: ${value}`)
        if (!isLower) assert.equal(validators[schema]?.(data), stored, `JSON Schema and ${reason}: ${value}`)
        const place = { topic: 't', partition: 0, offset: 0 }
        const event = readEvent(topic, record(value, null, { schema }), place)
        assert.equal(typeof event !== 'string', stored, `client: ${JSON.stringify(event)} and ${reason}`)
      }),
      {
        numRuns: 2000,
        examples: [
          [{ source: 'stream' }],
          [{ E: undefined, source: 'backfill' }],
          [{ E: undefined, source: 'archive' }],
        ],
      },
    )
  })
}

test('the schema of a gap knows its fields, and rejects others', () => {
  const gap = gapRow()
  assert.equal(validators['gap/1']?.(gap), true, JSON.stringify(validators['gap/1']?.errors))
  for (const wrong of [{ status: 'lost' }, { revision: 0 }, { from_id: -1 }, { detected_at: 'now' }])
    assert.equal(validators['gap/1']?.({ ...gap, ...wrong }), false)
})

test('the specification lists each cause of a gap as the program has it', () => {
  const specification = readFileSync(join(DOCS, 'specification.md'), 'utf8').replaceAll(/ *\| */g, '|')
  for (const cause of GAP_CAUSE_NAMES) {
    const [by, hasWindows, meaning] = GAP_CAUSES[cause]
    const row = [`\`${cause}\``, by, hasWindows ? 'yes' : 'no', meaning].join('|')
    assert.ok(specification.includes(`\n|${row}|\n`), cause)
  }
})

test('the AsyncAPI document lists every message and topic', () => {
  const document = parse(readFileSync(join(DOCS, 'schemas/asyncapi.yaml'), 'utf8'))
  assert.equal(document.asyncapi, '3.0.0')
  assert.deepEqual(
    Object.values<{ address: string }>(document.channels).map(({ address }) => address),
    ['trades', 'book_ticker', 'depth', 'dead_letters', 'checkpoints', 'gaps'].map(
      (name) => `binance.${name}`,
    ),
  )
  for (const { payload } of Object.values<{ payload: { $ref?: string } }>(document.components.messages))
    if (payload.$ref !== undefined) readFileSync(join(DOCS, 'schemas', payload.$ref))
  const targets = [...JSON.stringify(document).matchAll(/"#\/([^"]+)"/g)].map(([, path = '']) =>
    path.split('/'),
  )
  for (const path of targets)
    assert.ok(
      path.reduce((at: unknown, key) => Reflect.get(Object(at), key), document) !== undefined,
      path.join('/'),
    )
})
