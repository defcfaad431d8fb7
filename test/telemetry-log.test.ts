import assert from 'node:assert/strict'
import { test } from 'node:test'
import { errorFields } from '../src/foundation/telemetry/log.ts'

const ERROR = Object.assign(
  new AggregateError([new Error('the first'), new Error('the second')], 'both failed', {
    cause: new Error('the cause'),
  }),
  { code: 'ECONNREFUSED' },
)

test("a line shows an error's message, and its stack only at debug level", () => {
  const info = JSON.stringify(errorFields('info')(ERROR))
  assert.match(info, /both failed/)
  assert.match(info, /the cause/)
  assert.match(info, /the second/)
  assert.match(info, /ECONNREFUSED/)
  assert.doesNotMatch(info, /telemetry-log\.test|\bat /)
  assert.match(JSON.stringify(errorFields('debug')(ERROR)), /telemetry-log\.test/)
})

test('a thrown value that is no error is logged unchanged', () => {
  assert.equal(errorFields('info')('a text'), 'a text')
})
