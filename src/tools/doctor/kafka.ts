import { inspectTopics, type TopicReport } from '../../foundation/kafka/topics.ts'
import type { Settings } from '../../foundation/settings/load.ts'
import { plural } from '../../foundation/telemetry/plural.ts'
import { bad, type Finding, good, warning } from './finding.ts'

/** Checks that the brokers are reachable and have the topics that `topics init` would create. */
export async function checkKafka(settings: Settings): Promise<Finding[]> {
  const reports = await inspectTopics(settings)
  return [good('Kafka', `${settings.KAFKA_BROKERS.join()} answers`), ...reports.map(ofTopic)]
}

function ofTopic({ name, partitions, state, differences }: TopicReport): Finding {
  const what = `topic ${name}`
  if (state === 'missing') return bad(what, 'is missing', 'Run: bin/tapeline topics init')
  if (state === 'differs') {
    return warning(
      what,
      differences.join('; '),
      'Tapeline never changes an existing topic: set KAFKA_PARTITIONS and the related settings to match, or change it with kafka-configs.',
    )
  }
  return good(what, plural(partitions, 'partition'))
}
