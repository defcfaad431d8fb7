import { brokers } from './kafka.ts'
import { withAdmin } from './kafka-clients.ts'

/** Committed offsets of a group, as `topic:partition` → offset. */
export function committedOffsets(group: string): Promise<Map<string, number>> {
  return withAdmin(brokers(), async (admin) => {
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

/** Deletes an empty group's offsets, as the broker does after a week without use. */
export function forgetGroup(group: string): Promise<void> {
  return withAdmin(brokers(), (admin) => admin.deleteGroups({ groups: [group] }))
}

/** Ends every membership without notice, like the end of a session. */
export function removeMembers(group: string): Promise<void> {
  return withAdmin(brokers(), (admin) => admin.removeMembersFromConsumerGroup({ groupId: group }))
}
