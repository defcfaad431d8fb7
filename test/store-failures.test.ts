import assert from 'node:assert/strict'
import { test } from 'node:test'
import { LateAnswer } from '../src/foundation/kafka/broker-connections.ts'
import { TapelineError } from '../src/foundation/runtime/errors.ts'
import { type FailureKind, failureKind } from '../src/foundation/store/failures.ts'
import { openPostgres } from '../src/foundation/store/postgres.ts'
import { sqlStateOf } from '../src/foundation/store/sql-state.ts'
import { openTestDatabase } from './support/database.ts'
import { SQLSTATES } from './support/sqlstates.ts'
import { failureOf } from './support/wait-for.ts'

/** All SQLSTATEs that do not stop the consumer: whole classes, and single conditions. */
const RETRY = ['08', '53', '57', '58030', '40001', '40P01', '55P03', '25006', '25P03', '25P04']
const ROW = ['22', '23']
/** Other conditions of its class are retried; the same batch would exceed the same limit. */
const STOP = ['53400']

function expected(state: string): FailureKind {
  if (STOP.includes(state)) return 'stop'
  const isIn = (list: readonly string[]) => list.includes(state) || list.includes(state.slice(0, 2))
  if (isIn(RETRY)) return 'retry'
  return isIn(ROW) ? 'row' : 'stop'
}

const STATES = Object.entries(SQLSTATES).flatMap(([group, ends]) => ends.split(' ').map((end) => group + end))

test('F1 classifies every SQLSTATE of PostgreSQL as retry, single row or stop', () => {
  assert.ok(STATES.length > 240)
  for (const state of STATES) {
    assert.equal(failureKind(Object.assign(new Error('x'), { code: state })), expected(state), state)
  }
  for (const kind of ['retry', 'row', 'stop']) assert.ok(STATES.some((state) => expected(state) === kind))
})

test('F1 treats an unknown class as a defect, and never as a bad row', () => {
  for (const code of ['99999', 'ZZ000', 'TS001', 'A0000'])
    assert.equal(failureKind(Object.assign(new Error('x'), { code })), 'stop', code)
})

test('F1 classifies real database errors, condition by condition', async () => {
  await using server = await openTestDatabase('empty')
  for (const state of STATES.filter((one) => one !== '00000')) {
    const raise = `DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '${state}', MESSAGE = 'refused'; END $$`
    const error = await failureOf(server.database.transaction((connection) => connection.query(raise)))
    assert.equal(Reflect.get(Object(error), 'code'), state)
    assert.equal(failureKind(error), expected(state), state)
  }
})

test('F1 takes no code of our own for an SQLSTATE', () => {
  for (const code of ['KAFKA', 'INPUT', 'STORE'] as const)
    assert.equal(sqlStateOf(new TapelineError(code, 'x', { fix: 'y' })), null)
})

test('F2 treats an unreachable database as temporarily unavailable', async () => {
  for (const url of [
    'postgres://x@127.0.0.1:1/x',
    'postgres://x@localhost:1/x',
    'postgres://x@nowhere.invalid:1/x',
  ]) {
    const database = openPostgres({ url, poolMin: 0, poolMax: 1, applicationName: 'test' })
    const error = await failureOf(database.query('SELECT 1'))
    await database.close()
    assert.equal(failureKind(error), 'retry', url)
  }
})

test('F2 treats a broken connection, and an error without a code, as temporarily unavailable', () => {
  for (const code of ['ECONNREFUSED', 'ECONNRESET', 'EPIPE', undefined])
    assert.equal(failureKind(Object.assign(new Error('x'), { code })), 'retry', code)
  assert.equal(failureKind(new LateAnswer(4000)), 'retry')
})

test('F3 treats program errors as defects', () => {
  for (const error of [
    new TypeError('x is undefined'),
    new RangeError('x'),
    new SyntaxError('x'),
    Object.assign(new Error('x'), { code: 'ERR_INVALID_ARG_TYPE' }),
    'thrown text',
    undefined,
    null,
    { code: '08006' },
  ]) {
    assert.equal(failureKind(error), 'stop', String(error))
  }
})
