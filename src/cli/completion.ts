import { Argument, Command, type Option } from 'commander'

const SHELLS = ['bash', 'zsh', 'fish'] as const
type Shell = (typeof SHELLS)[number]

/** @param program with all commands; read only when the script is requested */
export function completionCommand(program: Command): Command {
  return new Command('completion')
    .description('print a script that completes commands and options in a shell')
    .addArgument(new Argument('<shell>', 'which shell').choices(SHELLS))
    .addHelpText('after', HELP)
    .action((shell: Shell) => console.log(completionScript(program, shell)))
}

const HELP = `
Examples:
  source <(bin/tapeline completion bash)
  bin/tapeline completion zsh > ~/.zfunc/_tapeline
  bin/tapeline completion fish > ~/.config/fish/completions/tapeline.fish`

/** A command with its path of words; the path of the program is empty. */
export interface Place {
  readonly path: readonly string[]
  readonly command: Command
}

export function placesOf(command: Command, path: readonly string[] = []): Place[] {
  return [{ path, command }, ...command.commands.flatMap((below) => placesOf(below, [...path, below.name()]))]
}

/** Completes commands, options, and the choices of options and arguments. */
export function completionScript(program: Command, shell: Shell): string {
  return { bash: bashScript, zsh: zshScript, fish: fishScript }[shell](placesOf(program))
}

/** Possible words after a command: subcommands, choices of its arguments, options. */
function wordsAt({ command }: Place): string[] {
  return [
    ...command.commands.map((below) => below.name()),
    ...command.registeredArguments.flatMap(({ argChoices }) => argChoices ?? []),
    ...visibleOptions(command).map(flagOf),
  ]
}

function visibleOptions(command: Command): Option[] {
  return [...command.createHelp().visibleOptions(command)]
}

function flagOf({ long, short }: Option): string {
  return long ?? short ?? ''
}

/** Options that take a value, with the allowed values. An empty list means file names. */
function valuesAt(place: Place): Array<{ key: string; values: string[] }> {
  return visibleOptions(place.command).flatMap((option) =>
    option.required
      ? [{ key: [...place.path, flagOf(option)].join(' '), values: option.argChoices ?? [] }]
      : [],
  )
}

function bashScript(places: readonly Place[]): string {
  const words = places.map((place) => `    '${place.path.join(' ')}') words='${wordsAt(place).join(' ')}' ;;`)
  const values = places
    .flatMap(valuesAt)
    .map(({ key, values: all }) => `    '${key}') values='${all.join(' ')}'; wants=1 ;;`)
  return `# Completion of tapeline for bash: source <(tapeline completion bash)
_tapeline() {
  local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD-1]} path='' words='' values='' wants='' word i
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    case "\${path:+$path }$word" in
${places.flatMap(({ path }) => (path.length === 0 ? [] : [`      '${path.join(' ')}') path="\${path:+$path }$word" ;;`])).join('\n')}
    esac
  done
  case "\${path:+$path }$previous" in
${values.join('\n')}
  esac
  if [ -n "$wants" ]; then
    if [ -n "$values" ]; then COMPREPLY=($(compgen -W "$values" -- "$current")); else COMPREPLY=($(compgen -f -- "$current")); fi
    return
  fi
  case "$path" in
${words.join('\n')}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  [ \${#COMPREPLY[@]} -gt 0 ] || COMPREPLY=($(compgen -f -- "$current"))
}
complete -F _tapeline tapeline bin/tapeline ./bin/tapeline`
}

/** zsh uses the completion of bash. */
function zshScript(places: readonly Place[]): string {
  return `#compdef tapeline
autoload -U +X bashcompinit && bashcompinit
${bashScript(places).replace('# Completion of tapeline for bash: source <(tapeline completion bash)\n', '')}`
}

function fishScript(places: readonly Place[]): string {
  const lines = places.flatMap(({ path, command }) => {
    const at =
      path.length === 0
        ? '__fish_use_subcommand'
        : path.map((word) => `__fish_seen_subcommand_from ${word}`).join('; and ')
    const line = (rest: string, description: string) =>
      `complete -c tapeline -n '${at}' ${rest} -d '${description.replaceAll(/['\\]/g, '').split('\n', 1).join()}'`
    return [
      ...command.commands.map((below) => line(`-f -a ${below.name()}`, below.description())),
      ...command.registeredArguments.flatMap(({ argChoices, description }) =>
        argChoices === undefined ? [] : [line(`-f -a '${argChoices.join(' ')}'`, description)],
      ),
      ...visibleOptions(command).map((option) => {
        const choices = option.argChoices === undefined ? '' : ` -a '${option.argChoices.join(' ')}'`
        const value = option.required ? ` -r${choices}` : ''
        return line(`-l ${flagOf(option).replace(/^-+/, '')}${value}`, option.description)
      }),
    ]
  })
  return `# Completion of tapeline for fish\n${lines.join('\n')}`
}
