/**
 * Preloaded (`node --import`) into processes that must not outlive the one that started them, also when that one is
 * killed: the IPC channel between them closes with it, and the process asks itself to stop as a person would.
 */
const FORCED_AFTER_MS = 12_000

if (process.channel) {
  process.on('disconnect', () => {
    process.kill(process.pid, 'SIGTERM')
    setTimeout(() => process.kill(process.pid, 'SIGKILL'), FORCED_AFTER_MS).unref()
  })
  // Listening must not keep alive a process that is done.
  process.channel.unref()
}
