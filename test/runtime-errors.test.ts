import assert from 'node:assert/strict'
import { test } from 'node:test'
import { describeWithFix, TapelineError } from '../src/foundation/runtime/errors.ts'

test('an error of several parts names the fix of each once', () => {
  const full = (path: string) =>
    new TapelineError('STORE', `${path} is full`, { fix: 'Free space on its disk.' })
  const errors = [full('a'), full('b'), new Error('defect'), new AggregateError([full('c')])]
  assert.equal(
    describeWithFix(new AggregateError(errors, 'Not all days were published')),
    'Not all days were published: a is full; b is full; defect; c is full. Free space on its disk.',
  )
  assert.equal(describeWithFix(new Error('defect')), 'defect')
})
