import type { WriteStream } from 'node:tty'

/** Whatever can steer a terminal or turn the direction of a line. */
const UNSAFE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu
/** The colours that this program writes, line ends and tabs, or one character that is unsafe. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const OURS_OR_UNSAFE = /\x1b\[(?:[012]|22|3[1239])m|[\n\t]|[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu

/** How streams write what was composed here and is clean in its parts. */
const unguarded = new WeakMap<object, (text: string) => void>()

/** One line in which control and format characters are written out, as `\u001b`. */
export function printable(text: string): string {
  return text.replaceAll(UNSAFE, writtenOut)
}

/** As {@link printable}, for text of several lines, in our own colours. */
export function terminalText(text: string): string {
  return text.replaceAll(OURS_OR_UNSAFE, (found) =>
    found.length > 1 || found === '\n' || found === '\t' ? found : writtenOut(found),
  )
}

/**
 * From now on all text that this stream gets passes {@link terminalText}, if it is a terminal: error texts, ledger rows and log
 * lines contain what the exchange, Kafka and the database wrote. Other streams are left alone.
 */
export function guardTerminal(stream: Pick<WriteStream, 'write'> & { readonly isTTY?: boolean }): void {
  if (stream.isTTY !== true || unguarded.has(stream)) return
  const { write } = stream
  unguarded.set(stream, (text) => write.call(stream, text))
  stream.write = new Proxy(write, {
    apply: (target, _this, [chunk, ...rest]) =>
      Reflect.apply(target, stream, [typeof chunk === 'string' ? terminalText(chunk) : chunk, ...rest]),
  })
}

/** Writes what moves the cursor, also on a guarded terminal. Texts in it must have passed {@link terminalText}. */
export function drawOn(stream: Pick<WriteStream, 'write'>, text: string): void {
  const write = unguarded.get(stream)
  if (write === undefined) stream.write(text)
  else write(text)
}

function writtenOut(character: string): string {
  return `\\u${(character.codePointAt(0) ?? 0).toString(16).padStart(4, '0')}`
}
