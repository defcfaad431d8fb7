// Exits with 0 while the process in this container is alive, even if Kafka, the database or the
// exchange is unreachable.
const response = await fetch(process.env.HEALTH_URL, { signal: AbortSignal.timeout(4000) })
process.exitCode = response.ok ? 0 : 1
