package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/cmd/internal/help"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/internal/bounded"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/doctor"
)

const applyHelp = `upcloud-doctor apply does what a reviewed list says, and nothing else.

The list is what storage or load-balancers print with --output yaml or json. Each entry of it has an action; change
it where you know better: keep, quarantine, remove, or restore. An entry is acted upon only if its thing is as it was
when the list was made, and if no rule forbids it: what is in use, another's, or named by an object stays whatever the
list says. What was not in quarantine for long enough is not removed, unless --now is given.` + exitStatuses

const restoreHelp = `upcloud-doctor restore takes storages, load balancers and certificate bundles out of quarantine.

It gives each its title back, and the label keep=restored, so that the doctor leaves it alone from then on. Without an
ID it restores all that carry this cluster's UID.` + exitStatuses

func newApplyCommand() *cobra.Command {
	var opts options
	command := &cobra.Command{
		Use: "apply PLAN [flags]", Short: "Do exactly what a reviewed list says", Long: applyHelp,
		Example: "  upcloud-doctor storage --cluster-id production --output yaml > plan.yaml\n  upcloud-doctor apply plan.yaml --cluster-id production",
		Args:    oneFile, SilenceUsage: true, SilenceErrors: true, DisableFlagsInUseLine: true,
		RunE: func(command *cobra.Command, args []string) error {
			plan, err := readPlan(args[0])
			if err != nil {
				return err
			}
			opts.balancers, opts.unclaimed = plan.Subject == "load-balancers", string(doctor.UnclaimedReport)
			return opts.with(command, func(ctx context.Context, physician physician, std streams) error {
				report, err := physician.Examine(ctx)
				if err != nil {
					return err
				}
				done, err := report.Apply(ctx, plan)
				if done == nil {
					return err
				}
				return finish(done, opts, std.out, err)
			})
		},
	}
	help.Set(command, opts.sharedFlags(true))
	return command
}

func newRestoreCommand() *cobra.Command {
	var opts options
	command := &cobra.Command{
		Use: "restore [ID]... [flags]", Short: "Take things out of quarantine", Long: restoreHelp,
		Example: "  upcloud-doctor restore 01a3b5c7-...",
		Args:    cobra.ArbitraryArgs, SilenceUsage: true, SilenceErrors: true, DisableFlagsInUseLine: true,
		RunE: func(command *cobra.Command, ids []string) error {
			opts.unclaimed = string(doctor.UnclaimedReport)
			return opts.with(command, func(ctx context.Context, physician physician, std streams) error {
				report, err := physician.Restore(ctx, ids)
				if report == nil {
					return err
				}
				return finish(report, opts, std.out, err)
			})
		},
	}
	sections := opts.sharedFlags(false)
	sections[0].Flags.BoolVar(&opts.balancers, "load-balancers", false, "restore load balancers and certificate bundles, and not storages")
	help.Set(command, sections)
	return command
}

func (o *options) sharedFlags(waits bool) []help.Section {
	account, kubernetes, fixing, general := help.NewFlagSet(), help.NewFlagSet(), help.NewFlagSet(), help.NewFlagSet()
	o.common(account, kubernetes, general)
	o.ofStorage(account, kubernetes)
	o.ofBalancers(account, kubernetes)
	if !waits {
		return []help.Section{{Title: "UpCloud", Flags: account}, {Title: "Kubernetes", Flags: kubernetes}, {Title: "General", Flags: general}}
	}
	o.waits(fixing)
	return sections(account, kubernetes, fixing, general)
}

func oneFile(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return errors.New("apply takes one plan: give the file that --output yaml or json wrote")
	}
	return nil
}

func readPlan(file string) (*doctor.Plan, error) {
	text, err := bounded.ReadFile(file, bounded.Plan.Bytes)
	if err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	plan, err := doctor.ParsePlan(text)
	if err != nil {
		return nil, fmt.Errorf("plan %s: %w", file, oneLine(err))
	}
	return plan, nil
}
