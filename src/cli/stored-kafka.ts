import { kafkaConnectionError } from '../foundation/kafka/broker-errors.ts'
import { type KafkaConnection, kafkaConnection } from '../foundation/kafka/config.ts'
import { describeError, isTapelineError, TapelineError } from '../foundation/runtime/errors.ts'
import type { Settings } from '../foundation/settings/load.ts'
import { readRunningEndpoints } from '../sandbox/processes/process-registry.ts'

/** Returns the Kafka of KAFKA_BROKERS, else that of the running `up`, else the default. */
export function storedKafka(settings: Settings): KafkaConnection {
  const connection = kafkaConnection(settings)
  const running = settings.isSet('KAFKA_BROKERS') ? null : readRunningEndpoints(settings.DATA_DIR)
  return { ...connection, brokers: running?.kafkaBrokers?.split(',') ?? connection.brokers }
}

/** Runs work on Kafka. @throws TapelineError `KAFKA` or `ACCESS`, not reported as a failure of the database */
export async function onKafka<Result>(kafka: KafkaConnection, work: () => Promise<Result>): Promise<Result> {
  try {
    return await work()
  } catch (error) {
    if (isTapelineError(error)) throw error
    const where = `Kafka at ${kafka.brokers.join()}`
    const refusal = kafkaConnectionError(error, kafka, where)
    if (refusal !== null) throw refusal
    throw new TapelineError('KAFKA', `${where} cannot be used: ${describeError(error)}`, {
      fix: 'Set KAFKA_BROKERS to running brokers.',
      cause: error,
    })
  }
}
