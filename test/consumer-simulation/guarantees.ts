import { keyOf } from '../../src/foundation/kafka/partition.ts'
import type { LogMessage, MemoryPartition } from './memory-log.ts'
import type { World } from './world.ts'

/** Violations after a run, one line each; empty if all guarantees hold. */
export function violations(world: World): string[] {
  const found = [...world.violations]
  for (const partition of world.log.partitions) {
    for (const [offset, message] of partition.messages.entries()) {
      const wrong = whatIsWrong(world, partition, offset, message)
      if (wrong !== null)
        found.push(`C1 ${keyOf(partition)}@${offset} (${message.meant.row ?? message.meant.fate}) ${wrong}`)
    }
    const end = partition.messages.length
    const stored = world.database.state.offsets.get(keyOf(partition))?.nextOffset
    if (stored !== end) found.push(`P6 ${keyOf(partition)} ends at ${end}, stored is ${stored}`)
    const committed = world.group.committed.get(keyOf(partition)) ?? 0
    if (committed !== end) found.push(`P6 ${keyOf(partition)} ends at ${end}, committed is ${committed}`)
  }
  for (const foreign of world.group.foreignCommits) found.push(`G4 committed without owning it: ${foreign}`)
  for (const [i, { worker, counts, fatal }] of world.processes.entries()) {
    if (fatal !== null) found.push(`F5 process ${i} stopped: ${String(fatal)}`)
    const { consumed, discarded } = worker.batchBuilder.counters
    const { pending } = worker.batchBuilder
    const { inserted, deadLettered, alreadyThere } = counts.totals
    const stored = inserted + deadLettered + alreadyThere
    if (consumed !== stored + discarded + pending)
      found.push(
        `C2 process ${i}: ${consumed} consumed, ${stored} stored, ${discarded} discarded, ${pending} pending`,
      )
    if (alreadyThere < 0) found.push(`C2 process ${i} counted a message twice`)
  }
  return found
}

function whatIsWrong(
  { database }: World,
  { topic, partition, start }: MemoryPartition,
  offset: number,
  { meant }: LogMessage,
): string | null {
  const { rows, letters, gaps, lost } = database.state
  const { fate, row, event } = meant
  if (fate === 'letter') return null
  const isStored = row !== null && rows.has(row)
  const isLetter = letters.has(`${topic}:${partition}:${offset}`)
  if (fate === 'stored' && isLetter) return 'is good, but a dead letter'
  if (fate !== 'stored' && isStored) return 'is bad, but stored'
  if (fate === 'stored' ? isStored : isLetter) return null
  if (offset >= start) return 'is nowhere'
  // It expired before it was stored. An unreadable message names no event.
  if (event === null) return null
  const { symbol, type, id, timeMs } = event
  const isWithin = (from: number | null, value: number, to: number | null) =>
    (from ?? 0) <= value && value <= (to ?? 0)
  const isNamed = [...gaps.values()]
    .filter((gap) => gap.symbol === symbol && gap.event_type === type)
    .some(({ from_id, to_id, from_time, to_time }) =>
      from_id === null ? isWithin(from_time, timeMs, to_time) : isWithin(from_id, id, to_id),
    )
  const isToBeAskedFor = [...lost.values()]
    .filter((one) => one.symbol === symbol && one.eventType === type)
    .some(({ range }) => range !== null && isWithin(range.from, id, range.to))
  return isNamed || isToBeAskedFor ? null : 'was lost, but is in no ledger row'
}
