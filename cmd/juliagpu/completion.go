package main

import (
	"io"
	"strings"

	"github.com/spf13/cobra"
)

var shells = []string{"bash", "zsh", "fish", "powershell"}

func (p *program) completion() *cobra.Command {
	return &cobra.Command{
		Use:                   "completion " + strings.Join(shells, "|"),
		Short:                 "a script that lets a shell complete the arguments",
		Long:                  "Prints a script that lets a shell complete juliagpu's arguments.",
		DisableFlagsInUseLine: true,
		Example: "source <(juliagpu completion bash)\tin ~/.bashrc, with bash-completion\n" +
			"source <(juliagpu completion zsh)\tin ~/.zshrc, below compinit\n" +
			"juliagpu completion fish | source\tin ~/.config/fish/config.fish\n" +
			"juliagpu completion powershell | Out-String | Invoke-Expression\tin $PROFILE",
		ValidArgs: shells,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return misused(c.CommandPath()+" --help says where it goes", "which shell? %s", strings.Join(shells, ", "))
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			write, ok := map[string]func(*cobra.Command, io.Writer) error{
				"bash":       func(root *cobra.Command, w io.Writer) error { return root.GenBashCompletionV2(w, true) },
				"zsh":        (*cobra.Command).GenZshCompletion,
				"fish":       func(root *cobra.Command, w io.Writer) error { return root.GenFishCompletion(w, true) },
				"powershell": (*cobra.Command).GenPowerShellCompletionWithDesc,
			}[args[0]]
			if !ok {
				return misused(c.CommandPath()+" --help says where it goes", "which shell? %s", strings.Join(shells, ", "))
			}
			var script strings.Builder
			if err := write(c.Root(), &script); err != nil {
				return err
			}
			return p.print(script.String())
		},
	}
}
