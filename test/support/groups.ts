import { Admin } from '@platformatic/kafka'
import { brokers } from './kafka.ts'

/** What a group has committed, as `topic:partition` → offset. */
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

/** Makes a group forget everything, as the broker does with one that nobody has used for a week. It must be empty. */
export function forgetGroup(group: string): Promise<void> {
  return withAdmin((admin) => admin.deleteGroups({ groups: [group] }))
}

/** Ends every membership, as the end of a session does; the members are not told. */
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
