import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { EventScanner } from '../src/foundation/market/event-scanner.ts'
import { LevelChecker } from '../src/foundation/market/levels.ts'
import {
  levelsFit,
  packedMaxBytes,
  packLevels,
  scalesOf,
  unpackLevels,
} from '../src/foundation/market/packed-levels.ts'
import { depthFrames, NO_DEPTH_CAPTURE } from './support/real-capture.ts'

type Level = readonly [price: string, quantity: string]

const bytesOf = (levels: readonly Level[]) => Buffer.from(JSON.stringify(levels).slice(1, -1))

/** Returns the packed bytes; null if a level does not fit. */
function pack(levels: readonly Level[]): Uint8Array | null {
  const bytes = bytesOf(levels)
  const out = new Uint8Array(3 + packedMaxBytes(levels.length))
  const sides = { bidsStart: 0, bidsEnd: bytes.length, asksStart: 0, asksEnd: 0 }
  if (levelsFit({ bytes, ...sides })) return out.subarray(3, packLevels(bytes, 0, bytes.length, out, 3))
  assert.throws(() => packLevels(bytes, 0, bytes.length, out, 3), RangeError)
  return null
}

/** Returns units of 10⁻⁸, in which every decimal is an integer. */
function exact(text: string): bigint {
  const [whole = '', fraction = ''] = text.split('.')
  return BigInt(whole + fraction.padEnd(8, '0'))
}

function unpack(packed: Uint8Array): bigint[][] {
  const levels: bigint[][] = []
  const { price: priceScale, quantity: quantityScale } = scalesOf(packed) ?? { price: 0, quantity: 0 }
  unpackLevels(packed, (price, quantity) =>
    levels.push([
      BigInt(price) * 10n ** BigInt(8 - priceScale),
      BigInt(quantity) * 10n ** BigInt(8 - quantityScale),
    ]),
  )
  return levels
}

const scaleOf = (texts: readonly string[]) =>
  Math.max(0, ...texts.map((text) => (text.split('.')[1] ?? '').replace(/0+$/, '').length))

const decimal = fc.oneof(
  fc
    .tuple(fc.bigInt({ min: 0n, max: 10n ** 12n - 1n }), fc.option(fc.stringMatching(/^\d{1,8}$/)))
    .map(([whole, fraction]) => (fraction === null ? String(whole) : `${whole}.${fraction}`)),
  fc
    .tuple(fc.nat(99_999), fc.nat(99))
    .map(([whole, cents]) => `${whole}.${String(cents).padStart(2, '0')}000000`),
  fc.constantFrom(
    '0',
    '0.00000000',
    '000000000001.50',
    '90071992.54740991',
    '90071992.54740992',
    '999999999999',
  ),
)
const levels = fc.array(fc.tuple(decimal, decimal), { maxLength: 40 })

test('unpacks the levels that were packed, with the smallest scales, or packs none', () => {
  let fitting = 0
  fc.assert(
    fc.property(levels, (given) => {
      const packed = pack(given)
      const scales = {
        price: scaleOf(given.map(([price]) => price)),
        quantity: scaleOf(given.map(([, one]) => one)),
      }
      const units = (text: string, scale: number) => exact(text) / 10n ** BigInt(8 - scale)
      const fits = given.every(
        ([price, quantity]) =>
          units(price, scales.price) <= Number.MAX_SAFE_INTEGER &&
          units(quantity, scales.quantity) <= Number.MAX_SAFE_INTEGER,
      )
      assert.equal(packed !== null, fits)
      if (packed === null) return
      fitting++
      assert.deepEqual(scalesOf(packed), given.length === 0 ? null : scales)
      assert.deepEqual(
        unpack(packed),
        given.map(([price, quantity]) => [exact(price), exact(quantity)]),
      )
    }),
    { numRuns: 3000 },
  )
  assert.ok(fitting > 100, `${fitting} fit`)
})

test('has the layout that unpack_levels reads', () => {
  assert.deepEqual([...(pack([]) ?? [])], [])
  const hex = (given: readonly Level[]) => Buffer.from(pack(given) ?? []).toString('hex')
  assert.equal(hex([['0', '0']]), '000000')
  assert.equal(hex([['1.50', '300']]), `10${'1e'}${'ac02'}`)
  assert.equal(
    hex([
      ['2.0', '0.1'],
      ['1.0', '0'],
      ['65.0', '12.8'],
    ]),
    `01${'04'}${'01'}${'01'}${'00'}${'8001'}${'8001'}`,
  )
  assert.equal(hex([['90071992.54740991', '0']]), `80${'feffffffffffff1f'}${'00'}`)
})

test('refuses damaged bytes', () => {
  const packed = pack([['61837.63', '3.78826']]) ?? assert.fail('it fits')
  for (let end = 2; end < packed.length; end++)
    assert.throws(() => unpackLevels(packed.subarray(0, end), () => {}), RangeError, `${end} bytes`)
  assert.throws(() => unpackLevels(new Uint8Array(20).fill(0xff), () => {}), RangeError)
})

test('finds the end of levels, and nothing else', () => {
  const checker = new LevelChecker()
  fc.assert(
    fc.property(levels, (given) => {
      const bytes = Buffer.concat([Buffer.from('[['), bytesOf(given), Buffer.from('],1')])
      assert.equal(checker.endOf(bytes, 2, bytes.length), bytes.length - 3)
      assert.equal(checker.count, given.length)
      if (!checker.hasLong) assert.notEqual(pack(given), null)
      for (const end of [bytes.length - 3, bytes.length - 5])
        if (end > 2) assert.equal(checker.endOf(bytes.subarray(0, end), 2, end), -1)
    }),
  )
})

test('packs recorded levels exactly, in under 4.5 bytes each', { skip: NO_DEPTH_CAPTURE }, async () => {
  const scanner = new EventScanner()
  const out = new Uint8Array(1 << 20)
  let [count, size] = [0, 0]
  for await (const { line } of depthFrames()) {
    if (!line.includes('@depth@100ms"')) continue
    const bytes = Buffer.from(line.slice(line.indexOf('"data":') + 7, -1))
    assert.ok(scanner.readEvent(bytes, 0, bytes.length))
    const { bidsStart, bidsEnd, asksStart, asksEnd, bidCount, askCount } = scanner.fields
    const bidsPacked = packLevels(bytes, bidsStart, bidsEnd, out, 0)
    const end = packLevels(bytes, asksStart, asksEnd, out, bidsPacked)
    const { b, a } = JSON.parse(bytes.toString())
    const expected = (side: Level[]) => side.map(([price, quantity]) => [exact(price), exact(quantity)])
    assert.deepEqual(unpack(out.subarray(0, bidsPacked)), expected(b))
    assert.deepEqual(unpack(out.subarray(bidsPacked, end)), expected(a))
    count += bidCount + askCount
    size += end
  }
  assert.ok(count > 100_000 && size / count < 4.5, `${size} bytes for ${count} levels`)
})
