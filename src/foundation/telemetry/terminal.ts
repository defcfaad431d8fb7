import type { WriteStream } from 'node:tty'

/** Characters that can control a terminal or change the direction of a line. */
const UNSAFE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu
/** Matches the colours that Tapeline writes, line ends and tabs, or one unsafe character. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const OURS_OR_UNSAFE = /\x1b\[(?:[012]|22|3[1239])m|[\n\t]|[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu

/** The unguarded write functions, for text whose parts are already clean. */
const unguarded = new WeakMap<object, (text: string) => void>()

/** Returns one line in which control and format characters are escaped, as `\u001b`. */
export function printable(text: string): string {
  return text.replaceAll(UNSAFE, writtenOut)
}

/** Like {@link printable}, for text of several lines with our colours. */
export function terminalText(text: string): string {
  return text.replaceAll(OURS_OR_UNSAFE, (found) =>
    found.length > 1 || found === '\n' || found === '\t' ? found : writtenOut(found),
  )
}

/** Passes all text for a terminal through {@link terminalText}, since parts of it come from outside. */
export function guardTerminal(stream: Pick<WriteStream, 'write'> & { readonly isTTY?: boolean }): void {
  if (stream.isTTY !== true || unguarded.has(stream)) return
  const { write } = stream
  unguarded.set(stream, (text) => write.call(stream, text))
  stream.write = new Proxy(write, {
    apply: (target, _this, [chunk, ...rest]) =>
      Reflect.apply(target, stream, [typeof chunk === 'string' ? terminalText(chunk) : chunk, ...rest]),
  })
}

/** Writes cursor movements, also to a guarded terminal, with texts that have passed {@link terminalText}. */
export function drawOn(stream: Pick<WriteStream, 'write'>, text: string): void {
  const write = unguarded.get(stream)
  if (write === undefined) stream.write(text)
  else write(text)
}

function writtenOut(character: string): string {
  return `\\u${(character.codePointAt(0) ?? 0).toString(16).padStart(4, '0')}`
}
