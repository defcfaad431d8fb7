import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3'
import { z } from 'zod'
import { type S3Options, S3Store } from '../../src/foundation/archive/s3-store.ts'
import { closeServer, listen } from './loopback.ts'
import { pythonWith } from './python.ts'

const MOTO = ['moto==5.2.5', 'flask==3.1.3', 'flask-cors==6.0.5', 'PyYAML==6.0.3', 'py-partiql-parser==0.6.3']
const BUCKET = 'tapeline'

/** A running store with a bucket `tapeline`, instead of one that the tests start. */
const GIVEN_URL = process.env['TAPELINE_TEST_S3_ENDPOINT']

/** For the AWS library in this process, and for those that it starts. */
export const S3_CREDENTIALS = { AWS_ACCESS_KEY_ID: 'a-key', AWS_SECRET_ACCESS_KEY: 'a-secret' }

export interface S3Server extends AsyncDisposable {
  readonly url: string
  /** Null for a store that the tests have not started. */
  readonly moto: {
    /** Puts numbered objects under a prefix; FIRST and NEXT in the body become the numbers. */
    put(prefix: string, count: number, body: string): Promise<unknown>
    /** Makes a user, and from now on checks signatures and rights. @returns its credentials */
    user(policy: object): Promise<typeof S3_CREDENTIALS>
    createBucket(name: string): Promise<void>
  } | null
}

/**
 * Starts an S3 server in a separate process, with the bucket `tapeline`. With
 * TAPELINE_TEST_S3_ENDPOINT it is that one, with the credentials of the environment.
 *
 * @returns why there is none
 */
export async function startS3Server(): Promise<S3Server | { readonly skip: string }> {
  if (GIVEN_URL !== undefined) return { url: GIVEN_URL, moto: null, [Symbol.asyncDispose]: async () => {} }
  const python = await pythonWith('s3-server', MOTO)
  if (typeof python !== 'string') return python
  Object.assign(process.env, S3_CREDENTIALS)
  const child = spawn(python, [join(import.meta.dirname, 's3_server.py')], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]()
  const answer = async (): Promise<unknown> => JSON.parse(String((await lines.next()).value))
  const url = `http://127.0.0.1:${await answer()}`
  const createBucket = async (name: string) => {
    const client = new S3Client({ region: 'us-east-1', endpoint: url, forcePathStyle: true })
    await client.send(new CreateBucketCommand({ Bucket: name }))
    client.destroy()
  }
  await createBucket(BUCKET)
  const order = (one: object) => {
    child.stdin.write(`${JSON.stringify(one)}\n`)
    return answer()
  }
  return {
    url,
    moto: {
      put: (prefix, count, body) => order({ put: [BUCKET, prefix, count, body] }),
      async user(policy) {
        const [id, secret] = z.tuple([z.string(), z.string()]).parse(await order({ user: policy }))
        return { AWS_ACCESS_KEY_ID: id, AWS_SECRET_ACCESS_KEY: secret }
      },
      createBucket,
    },
    async [Symbol.asyncDispose]() {
      const exited = once(child, 'exit')
      child.stdin.end()
      await exited
    },
  }
}

/** Opens a store with an empty cache. End it with `await using`. */
export function openTestS3Store(endpoint: string, options: Partial<S3Options> = {}) {
  const cacheFolder = options.cacheFolder ?? mkdtempSync(join(tmpdir(), 'tapeline-cache-'))
  const store = new S3Store({
    ...{ bucket: BUCKET, prefix: 'archive', endpoint, region: 'us-east-1' },
    ...{ cacheFolder, cacheBytes: 1 << 30, silenceLimitMs: 10_000 },
    ...options,
  })
  return {
    store,
    cacheFolder,
    async [Symbol.asyncDispose]() {
      await store.close()
      if (options.cacheFolder === undefined) rmSync(cacheFolder, { recursive: true })
    },
  }
}

/**
 * What the proxy does with a request: answer 500 before or after the server has done it, 503 or 403,
 * never answer, end the answer in its middle, not pass on `If-None-Match`, or answer 403 in place of 404.
 */
export type S3Fault =
  | 'fail before'
  | 'fail after'
  | 'busy'
  | 'clock skew'
  | 'silence'
  | 'cut'
  | 'unconditional'
  | 'hide missing'

export interface S3Request {
  readonly method: string
  /** With the bucket. */
  readonly path: string
  readonly isList: boolean
}

const ANSWERS: Partial<Record<S3Fault, readonly [status: number, code: string]>> = {
  'fail before': [500, 'InternalError'],
  'fail after': [500, 'InternalError'],
  busy: [503, 'SlowDown'],
  'clock skew': [403, 'RequestTimeTooSkewed'],
}

/** An HTTP proxy in front of an S3 server. @param decide called for each request; undefined: passed on */
export async function startS3Proxy(
  serverUrl: string,
  decide: (one: S3Request) => S3Fault | undefined = () => undefined,
) {
  const requests: S3Request[] = []
  const open = new Set<Socket>()
  const handle = async (incoming: IncomingMessage, response: ServerResponse) => {
    const url = new URL(incoming.url ?? '', serverUrl)
    const method = incoming.method ?? ''
    const one = { method, path: url.pathname, isList: url.searchParams.has('list-type') }
    requests.push(one)
    const body = Buffer.concat(await Array.fromAsync(incoming))
    const fault = proxy.decide(one)
    if (fault === 'silence') return
    const [status, code = ''] = (fault === undefined ? undefined : ANSWERS[fault]) ?? []
    if (status !== undefined) {
      if (fault === 'fail after') await forward(url, incoming, body, false)
      return void refuse(response, status, code)
    }
    const answer = await forward(url, incoming, body, fault === 'unconditional')
    if (fault === 'hide missing' && answer.status === 404) return void refuse(response, 403, 'AccessDenied')
    response.writeHead(answer.status, { ...answer.headers, 'content-length': answer.body.length })
    if (fault !== 'cut') return void response.end(answer.body)
    response.write(answer.body.subarray(0, answer.body.length / 2), () => response.destroy())
    if (answer.body.length === 0) response.destroy()
  }
  const server = createServer((incoming, response) => {
    handle(incoming, response).catch(() => response.destroy())
  })
  server.on('connection', (socket) => {
    open.add(socket)
    socket.on('close', () => open.delete(socket))
  })
  const proxy = {
    url: `http://127.0.0.1:${await listen(server)}`,
    requests,
    decide,
    [Symbol.asyncDispose]: () => closeServer(server, open),
  }
  return proxy
}

function refuse(response: ServerResponse, status: number, code: string): void {
  response.writeHead(status, { 'content-type': 'application/xml' })
  response.end(`<?xml version="1.0"?><Error><Code>${code}</Code><Message>injected</Message></Error>`)
}

async function forward(url: URL, incoming: IncomingMessage, body: Buffer, isUnconditional: boolean) {
  const { 'if-none-match': condition, ...others } = incoming.headers
  const isPassed = !isUnconditional && condition !== undefined
  const headers = isPassed ? { ...others, 'if-none-match': condition } : others
  const sent = request(url, { method: incoming.method ?? 'GET', headers, agent: false })
  sent.end(body)
  const [answer]: IncomingMessage[] = await once(sent, 'response')
  if (answer === undefined) throw new Error('There is no answer')
  const { 'transfer-encoding': _, connection: _closed, ...answered } = answer.headers
  return {
    status: answer.statusCode ?? 500,
    headers: answered,
    body: Buffer.concat(await Array.fromAsync(answer)),
  }
}
