/**
 * Preloaded (`node --import`) into processes that must not outlive their parent, even if that is
 * killed. The IPC channel closes with the parent, and the process then sends itself SIGTERM.
 */
const FORCED_AFTER_MS = 12_000

if (process.channel) {
  process.on('disconnect', () => {
    process.kill(process.pid, 'SIGTERM')
    setTimeout(() => process.kill(process.pid, 'SIGKILL'), FORCED_AFTER_MS).unref()
  })
  // The listener must not keep a finished process alive.
  process.channel.unref()
}
