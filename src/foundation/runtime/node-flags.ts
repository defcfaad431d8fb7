/**
 * The environment of every Node process of Tapeline. `bin/tapeline`, which explains the values, and
 * the image repeat it for the first process; `npm test -- containers` compares them.
 */
export const NODE_ENVIRONMENT = {
  MALLOC_ARENA_MAX: '2',
  NODE_OPTIONS: '--max-semi-space-size=8 --v8-pool-size=1',
}

/**
 * For services. V8 treats messages as old objects, since they live until they are acknowledged or
 * stored. It would let the heap grow to several times the live size before it collects them. At
 * 30 %, a consumer that drains millions of messages stays under 250 MiB, measured by `npm test --
 * consumer-drain`.
 */
export const SERVICE_V8_FLAGS = '--heap-growing-percent=30'
