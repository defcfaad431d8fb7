// Exit code 0 while the service in this container answers 200: connected and producing, or assigned and storing.
const response = await fetch(process.env.HEALTH_URL, { signal: AbortSignal.timeout(4000) })
process.exitCode = response.ok ? 0 : 1
