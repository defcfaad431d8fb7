import { randomUUID } from 'node:crypto'
import { after, test } from 'node:test'
import { useStore } from './support/archive-store.ts'
import { openTestS3Store, startS3Server } from './support/s3.ts'

const server = await startS3Server()
if ('skip' in server) {
  test('the protocol of the archive on S3', { skip: server.skip }, () => {})
} else {
  after(() => server[Symbol.asyncDispose]())
  useStore((context) => {
    const opened = openTestS3Store(server.url, { prefix: randomUUID() })
    context.after(() => opened[Symbol.asyncDispose]())
    return opened.store
  })
  await import('./archive-protocol.test.ts')
}
