import type { KafkaConnection } from '../foundation/kafka/config.ts'
import { kafkaConnection } from '../foundation/kafka/config.ts'
import type { Settings } from '../foundation/settings/load.ts'
import { readRunningEndpoints } from '../sandbox/processes/process-registry.ts'

/** Returns the Kafka of KAFKA_BROKERS, else that of the running `up`, else the default. */
export function storedKafka(settings: Settings): KafkaConnection {
  const connection = kafkaConnection(settings)
  const running = settings.isSet('KAFKA_BROKERS') ? null : readRunningEndpoints(settings.DATA_DIR)
  return { ...connection, brokers: running?.kafkaBrokers?.split(',') ?? connection.brokers }
}
