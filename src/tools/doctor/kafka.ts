import { inspectTopics, type TopicReport } from '../../foundation/kafka/topics.ts'
import type { Settings } from '../../foundation/settings/load.ts'
import { plural } from '../../foundation/telemetry/plural.ts'
import { bad, type Finding, good, warning } from './finding.ts'

/** Brokers that are to be used: reachable, and with the topics as `topics init` would make them. */
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
      'An existing topic is never changed: set KAFKA_PARTITIONS and the others to what it is, or change it with kafka-configs.',
    )
  }
  return good(what, plural(partitions, 'partition'))
}
