import { test } from 'node:test'
import { checkedWorld } from './simulation/checked-world.ts'

/** Seeds that once revealed a defect, in worlds without order books. */
const KEPT = {
  rough: [1, 2, 3, 15, 19, 5, 20, 77, 73, 82, 151, 311, 5015, 5026],
  cluster: [
    1, 4, 12, 30, 20, 54, 57, 47, 81, 97, 45, 25, 50, 151, 153, 204, 309, 66, 94, 129, 3016, 3017, 5043, 5056,
  ],
} as const

/** Seeds that once revealed a defect of order books. */
const KEPT_BOOKS = [
  ['rough', 105],
  ['cluster', 3],
  ['cluster', 24],
  ['cluster', 186],
] as const

for (const name of ['rough', 'cluster'] as const) {
  for (const seed of KEPT[name]) {
    test(`keeps every guarantee with a seed that once failed: ${name} ${seed}`, async () => {
      await checkedWorld(name, seed, { depth: false })
    })
  }
}

for (const [name, seed] of KEPT_BOOKS) {
  test(`keeps every guarantee of order books with a seed that once failed: ${name} ${seed}`, async () => {
    await checkedWorld(name, seed)
  })
}
