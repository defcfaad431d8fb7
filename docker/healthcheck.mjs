// Exit code 0 while the process in this container is worth keeping, whether or not Kafka, the database and the exchange are there.
const response = await fetch(process.env.HEALTH_URL, { signal: AbortSignal.timeout(4000) })
process.exitCode = response.ok ? 0 : 1
