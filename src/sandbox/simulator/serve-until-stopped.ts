import type { Exchange } from './exchange-server.ts'

/**
 * Serves until SIGINT, SIGTERM or the end of the parent process. Reports the addresses on standard
 * output, and to a parent process. A second signal ends the process at once.
 * @throws the rejection of `finished`, after closing: the replay failed
 */
export async function serveUntilStopped(
  title: string,
  exchange: Exchange,
  finished?: Promise<void>,
): Promise<void> {
  const { wsUrl, restUrl, source } = exchange
  const { promise: stopped, resolve: stop, reject: fail } = Promise.withResolvers<void>()
  const onStop = () => stop()
  process.once('SIGINT', onStop).once('SIGTERM', onStop).once('disconnect', onStop)
  process.stdout.write(
    `${title}. Point tapeline at it: BINANCE_WS_URL=${wsUrl} BINANCE_REST_URL=${restUrl} (Ctrl-C stops it)\n`,
  )
  tellParent({ type: 'listening', wsUrl, restUrl, source })
  finished?.then(() => tellParent({ type: 'finished' }), fail)
  try {
    await stopped
  } finally {
    process.off('SIGINT', onStop).off('SIGTERM', onStop).off('disconnect', onStop)
    await exchange.close()
    if (process.connected) process.disconnect()
  }
}

function tellParent(message: { type: string; [name: string]: string }): void {
  // If the parent has ended, 'disconnect' stops the exchange.
  if (process.connected) process.send?.(message, undefined, undefined, () => undefined)
}
