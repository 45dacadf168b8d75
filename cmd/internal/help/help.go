// Package help gives the programs one way to show their flags: in groups under headings, in the order they were defined.
package help

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Section is a group of flags under a heading of the help.
type Section struct {
	Title string
	Flags *pflag.FlagSet
}

// width is where the help breaks its lines.
const width = 100

// NewFlagSet returns an empty group that keeps the order of its flags.
func NewFlagSet() *pflag.FlagSet {
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.SortFlags = false
	return flags
}

// Set gives the command the flags of the sections and a help that shows them by section; a wrong flag points to it.
func Set(command *cobra.Command, sections []Section) {
	for _, s := range sections {
		command.Flags().AddFlagSet(s.Flags)
	}
	command.SetFlagErrorFunc(func(command *cobra.Command, err error) error {
		return fmt.Errorf("%w; see %s --help", err, command.CommandPath())
	})
	command.SetHelpFunc(func(command *cobra.Command, _ []string) { write(command, sections) })
}

func write(command *cobra.Command, sections []Section) {
	out := command.OutOrStdout()
	fmt.Fprintf(out, "%s\n\nUsage:\n  %s\n", command.Long, command.UseLine())
	for _, s := range sections {
		fmt.Fprintf(out, "\n%s:\n%s", s.Title, s.Flags.FlagUsagesWrapped(width))
	}
	fmt.Fprintf(out, "\nExamples:\n%s\n", command.Example)
}
