import { Argument, Command } from 'commander'
import { completionScript, SHELLS, type Shell } from './completion-script.ts'

/** @param program with all commands; read only when the script is requested */
export function completionCommand(program: Command): Command {
  return new Command('completion')
    .description('print a script that completes commands and options in a shell')
    .addArgument(new Argument('<shell>', 'which shell').choices(SHELLS))
    .addHelpText(
      'after',
      `\nExamples:
  source <(bin/tapeline completion bash)
  bin/tapeline completion zsh > ~/.zfunc/_tapeline
  bin/tapeline completion fish > ~/.config/fish/completions/tapeline.fish`,
    )
    .action((shell: Shell) => console.log(completionScript(program, shell)))
}
