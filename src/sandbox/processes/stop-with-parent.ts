/** Preloaded into children: when the IPC channel closes with the parent, they end themselves. */
const FORCED_AFTER_MS = 12_000

if (process.channel) {
  process.on('disconnect', () => {
    process.kill(process.pid, 'SIGTERM')
    setTimeout(() => process.kill(process.pid, 'SIGKILL'), FORCED_AFTER_MS).unref()
  })
  // The listener must not keep a finished process alive.
  process.channel.unref()
}
