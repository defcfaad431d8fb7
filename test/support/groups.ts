import { Admin } from '@platformatic/kafka'
import { brokers } from './kafka.ts'

/** Committed offsets of a group, as `topic:partition` → offset. */
export function committedOffsets(group: string): Promise<Map<string, number>> {
  return withAdmin(async (admin) => {
    const groups = await admin.listConsumerGroupOffsets({ groups: [group] })
    return new Map(
      groups.flatMap(({ topics }) =>
        topics.flatMap(({ name, partitions }) =>
          partitions.map(({ partitionIndex, committedOffset }): [string, number] => [
            `${name}:${partitionIndex}`,
            Number(committedOffset),
          ]),
        ),
      ),
    )
  })
}

/**
 * Deletes a group's offsets, as the broker does after a week without use. The group must be empty.
 */
export function forgetGroup(group: string): Promise<void> {
  return withAdmin((admin) => admin.deleteGroups({ groups: [group] }))
}

/** Ends every membership without notice, like the end of a session. */
export function removeMembers(group: string): Promise<void> {
  return withAdmin((admin) => admin.removeMembersFromConsumerGroup({ groupId: group }))
}

async function withAdmin<Result>(work: (admin: Admin) => Promise<Result>): Promise<Result> {
  const admin = new Admin({
    clientId: 'tapeline-test',
    bootstrapBrokers: brokers(),
    timeout: 10_000,
    strict: true,
  })
  try {
    return await work(admin)
  } finally {
    await admin.close()
  }
}
