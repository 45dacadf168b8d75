package main

import (
	goflag "flag"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/cmd/internal/help"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/doctor"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/driver"
)

// version is set when the program is built: -ldflags "-X main.version=v1.2.3".
var version string

// options are the flags as they were given.
type options struct {
	kubeconfig, context       string
	credentialsDir, clusterID string
	balancers                 bool // the command is load-balancers, and not storage
	clusterName               string
	driverName                string
	safetyAge                 time.Duration
	unclaimed                 string
	fix, yes                  bool
	output                    string
}

const rootHelp = `upcloud-doctor compares an UpCloud account with what a Kubernetes cluster knows of it.

Commands:
  storage          find storages, backups and attachments that were left behind, and those that are missed
  load-balancers   find load balancers, certificates and parts of shared load balancers that were left behind`

const storageHelp = `upcloud-doctor storage finds what the CSI driver of a cluster left behind, and what the cluster misses.

In the account: storages that no PersistentVolume knows, backups that no VolumeSnapshotContent knows,
unfinished copies, attachments that no VolumeAttachment explains. In Kubernetes: PersistentVolumes,
VolumeSnapshotContents and VolumeAttachments whose storage, backup or attachment is gone.

It changes nothing without --fix. With it, storages and backups that were left behind are removed from the
account, after a question for each. What is attached, younger than --safety-age, another cluster's, or named
by any PersistentVolume or VolumeSnapshotContent is kept. Kubernetes is only read.

Credentials for UpCloud come from --credentials-dir, or from the environment:
  UPCLOUD_TOKEN                          an API token, or
  UPCLOUD_USERNAME and UPCLOUD_PASSWORD  an API user
  UPCLOUD_DEBUG_API_BASE_URL             another API than https://api.upcloud.com

Exit status: 0 nothing found, or nothing left after --fix; 1 an error; 3 findings.`

const storageExamples = `  # What was left behind by the cluster of the present kubectl context
  UPCLOUD_TOKEN=ucat_... upcloud-doctor storage --cluster-id production

  # Remove it, with a question for each
  upcloud-doctor storage --cluster-id production --fix

  # In a Pod, for a monitoring system
  upcloud-doctor storage --credentials-dir /etc/upcloud --cluster-id production --output json

  # Also what UpCloud's own driver left behind, if no other cluster uses the account
  upcloud-doctor storage --cluster-id production --fix --unclaimed remove`

// newCommand is the whole program.
func newCommand() *cobra.Command {
	var showVersion bool
	general := help.NewFlagSet()
	general.BoolVar(&showVersion, "version", false, "print the version and exit")
	general.BoolP("help", "h", false, "print this help and exit")
	root := &cobra.Command{
		Use: "upcloud-doctor COMMAND [flags]", Short: "Find what a cluster left behind in an UpCloud account",
		Long: rootHelp, SilenceUsage: true, SilenceErrors: true, DisableFlagsInUseLine: true,
		Example: `  upcloud-doctor storage --help`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unknown command %q: use storage or load-balancers; see upcloud-doctor --help", args[0])
			}
			return nil
		},
		RunE: func(command *cobra.Command, _ []string) error {
			if !showVersion {
				return fmt.Errorf("no command is given: use storage or load-balancers; see upcloud-doctor --help")
			}
			fmt.Fprintln(command.OutOrStdout(), "upcloud-doctor", programVersion())
			return nil
		},
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommand(&cobra.Command{Hidden: true})
	help.Set(root, []help.Section{{Title: "General", Flags: general}})
	root.AddCommand(newStorageCommand(), newBalancersCommand())
	return root
}

func newStorageCommand() *cobra.Command {
	var opts options
	command := &cobra.Command{
		Use: "storage [flags]", Short: "Find storages, backups and attachments left behind or missed",
		Long: storageHelp, Example: storageExamples, Args: cobra.NoArgs,
		SilenceUsage: true, SilenceErrors: true, DisableFlagsInUseLine: true,
		RunE: func(command *cobra.Command, _ []string) error {
			return run(command.Context(), opts, streams{
				in: command.InOrStdin(), out: command.OutOrStdout(), err: command.ErrOrStderr(),
			})
		},
	}
	help.Set(command, opts.flags())
	return command
}

func (o *options) flags() []help.Section {
	account, kubernetes, fixing, general := help.NewFlagSet(), help.NewFlagSet(), help.NewFlagSet(), help.NewFlagSet()
	o.common(account, kubernetes, fixing, general)
	account.StringVar(&o.clusterID, "cluster-id", "",
		"`name` of the cluster as csi-driver has it: only storages with that label are taken for this cluster's")
	account.StringVar(&o.unclaimed, "unclaimed", string(doctor.UnclaimedReport),
		"`what` to do with storages that do not say whose they are, made by UpCloud's own driver or without a cluster ID: "+
			"report, ignore, or remove with --fix, if no other cluster uses the account")
	kubernetes.StringVar(&o.driverName, "driver-name", driver.Name, "`name` of the CSI driver")
	fixing.BoolVar(&o.fix, "fix", false, "remove storages and backups that were left behind, after a question for each")
	return sections(account, kubernetes, fixing, general)
}

// common are the flags that all commands have.
func (o *options) common(account, kubernetes, fixing, general *pflag.FlagSet) {
	account.StringVar(&o.credentialsDir, "credentials-dir", "",
		"`folder` with the file token, or with the files username and password, such as a mounted Secret; used "+
			"instead of the environment")
	kubernetes.StringVar(&o.kubeconfig, "kubeconfig", "",
		"`file` that tells the API server; without it KUBECONFIG, ~/.kube/config, or the Pod's service account")
	kubernetes.StringVar(&o.context, "context", "", "`name` of the kubeconfig's context; empty for its present one")
	fixing.BoolVar(&o.yes, "yes", false, "with --fix: ask no questions")
	fixing.DurationVar(&o.safetyAge, "safety-age", time.Hour,
		"what is younger is never called left behind, nor removed: somebody may be making it")

	general.StringVarP(&o.output, "output", "o", outputTable, "`form` of what is printed: table or json")
	logging(general)
	general.BoolP("help", "h", false, "print this help and exit")
}

func sections(account, kubernetes, fixing, general *pflag.FlagSet) []help.Section {
	return []help.Section{
		{Title: "UpCloud", Flags: account},
		{Title: "Kubernetes", Flags: kubernetes},
		{Title: "Removing", Flags: fixing},
		{Title: "General", Flags: general},
	}
}

// logging takes from klog's many flags the one that is of use here.
func logging(flags *pflag.FlagSet) {
	all := goflag.NewFlagSet("klog", goflag.ContinueOnError)
	klog.InitFlags(all)
	level := pflag.PFlagFromGoFlag(all.Lookup("v"))
	level.Usage = "log `level`: 0 errors, 2 removals, 5 every call"
	flags.AddFlag(level)
}

func programVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" && len(setting.Value) >= 12 {
			return "devel-" + setting.Value[:12]
		}
	}
	return "devel"
}
