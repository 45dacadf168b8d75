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
	quarantine                time.Duration
	class                     string
	unclaimed                 string
	fix, yes, now             bool
	output, journal           string
}

const rootHelp = `upcloud-doctor compares an UpCloud account with what a Kubernetes cluster knows of it.

Commands:
  storage          find storages, backups and attachments that were left behind, and those that are missed
  load-balancers   find load balancers, certificates and parts of shared load balancers that were left behind
  routes           list routes and routers that clusters which are gone may have left
  apply PLAN       do exactly what a reviewed list says (of --output yaml or json), and nothing else
  restore [ID]...  take what was marked or put into quarantine back

It never touches what another cluster made, what is in use, or what nothing proves to be left behind.`

// exitStatuses are the same for all commands.
const exitStatuses = `

Credentials for UpCloud come from --credentials-dir, or from the environment:
  UPCLOUD_TOKEN                          an API token, or
  UPCLOUD_USERNAME and UPCLOUD_PASSWORD  an API user
  UPCLOUD_DEBUG_API_BASE_URL             another API than https://api.upcloud.com

Exit status: 0 nothing found, or nothing left after --fix; 1 an error; 3 findings; 4 the credentials, the
kubeconfig and the cluster ID are not of one cluster, and nothing was judged; 130 interrupted.`

const storageHelp = `upcloud-doctor storage finds what the CSI driver of a cluster left behind, and what the cluster misses.

In the account: storages that no PersistentVolume knows, backups that no VolumeSnapshotContent knows,
unfinished copies, attachments that no VolumeAttachment explains. In Kubernetes: PersistentVolumes,
VolumeSnapshotContents and VolumeAttachments whose storage, backup or attachment is gone.

It changes nothing without --fix. With it, each leftover goes one step further: it is marked at the first
look, put into quarantine a --safety-age later, and removed when the --quarantine is over. Only disks with
this cluster's UID go that way whose PersistentVolume the cluster's record saw being deleted, and unfinished
copies of this cluster's volumes. Whatever is attached, named by any object, favoured, labelled or titled
keep, or a backup stays; what is wanted again is restored. About all others a person decides in a plan.` + exitStatuses

const storageExamples = `  # What was left behind by the cluster of the present kubectl context
  UPCLOUD_TOKEN=ucat_... upcloud-doctor storage --cluster-id production

  # Take what is proven one step further, with a question for each; run it every hour
  upcloud-doctor storage --cluster-id production --fix

  # In a Pod, for a monitoring system
  upcloud-doctor storage --credentials-dir /etc/upcloud --cluster-id production --output json

  # Decide about the others: set action: quarantine where nothing is wanted, and keep elsewhere
  upcloud-doctor storage --cluster-id production --output yaml > plan.yaml
  upcloud-doctor apply plan.yaml --cluster-id production`

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
				return fmt.Errorf("unknown command %q: use storage, load-balancers, routes, apply or restore; see upcloud-doctor --help", args[0])
			}
			return nil
		},
		RunE: func(command *cobra.Command, _ []string) error {
			if !showVersion {
				return fmt.Errorf("no command is given: use storage, load-balancers, routes, apply or restore; see upcloud-doctor --help")
			}
			fmt.Fprintln(command.OutOrStdout(), "upcloud-doctor", programVersion())
			return nil
		},
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommand(&cobra.Command{Hidden: true})
	help.Set(root, []help.Section{{Title: "General", Flags: general}})
	root.AddCommand(newStorageCommand(), newBalancersCommand(), newRoutesCommand(), newApplyCommand(), newRestoreCommand())
	return root
}

func newStorageCommand() *cobra.Command {
	var opts options
	command := &cobra.Command{
		Use: "storage [flags]", Short: "Find storages, backups and attachments left behind or missed",
		Long: storageHelp, Example: storageExamples, Args: cobra.NoArgs,
		SilenceUsage: true, SilenceErrors: true, DisableFlagsInUseLine: true,
		RunE: func(command *cobra.Command, _ []string) error {
			return run(command, opts)
		},
	}
	help.Set(command, opts.flags())
	return command
}

func (o *options) flags() []help.Section {
	account, kubernetes, fixing, general := help.NewFlagSet(), help.NewFlagSet(), help.NewFlagSet(), help.NewFlagSet()
	o.common(account, kubernetes, general)
	o.waits(fixing)
	o.fixes(fixing)
	o.ofStorage(account, kubernetes)
	o.treatmentOfUnclaimed(account)
	return sections(account, kubernetes, fixing, general)
}

// ofStorage are the flags that say which storages are meant.
func (o *options) ofStorage(account, kubernetes *pflag.FlagSet) {
	account.StringVar(&o.clusterID, "cluster-id", "",
		"`name` of the cluster as csi-driver has it; checked against the labels of its storages")
	kubernetes.StringVar(&o.driverName, "driver-name", driver.Name, "`name` of the CSI driver")
}

// treatmentOfUnclaimed is the flag about things without a label of any cluster.
func (o *options) treatmentOfUnclaimed(account *pflag.FlagSet) {
	account.StringVar(&o.unclaimed, "unclaimed", string(doctor.UnclaimedReport),
		"`what` to do with what does not say whose it is, made by UpCloud's own programs or without a cluster ID: report or ignore; "+
			"it is never touched")
}

// common are the flags that all commands have.
func (o *options) common(account, kubernetes, general *pflag.FlagSet) {
	account.StringVar(&o.credentialsDir, "credentials-dir", "",
		"`folder` with the file token, or with the files username and password, such as a mounted Secret; used "+
			"instead of the environment")
	kubernetes.StringVar(&o.kubeconfig, "kubeconfig", "",
		"`file` that names the API server; without it KUBECONFIG, ~/.kube/config, or the Pod's service account")
	kubernetes.StringVar(&o.context, "context", "", "`name` of the kubeconfig's context; empty for its present one")
	general.StringVarP(&o.output, "output", "o", outputTable, "`form` of what is printed: table, json or yaml; the last two are plans for apply")
	general.StringVar(&o.journal, "journal", "", "`file` that gets a line of JSON before and after each change, at once")
	logging(general)
	general.BoolP("help", "h", false, "print this help and exit")
}

// waits are the flags of whatever changes something.
func (o *options) waits(fixing *pflag.FlagSet) {
	fixing.DurationVar(&o.safetyAge, "safety-age", time.Hour,
		"what is younger is never called left behind; and how long after its mark a thing goes into quarantine at the earliest")
	fixing.DurationVar(&o.quarantine, "quarantine", 7*24*time.Hour, "how long a thing is in quarantine before it is removed")
	fixing.BoolVar(&o.now, "now", false, "skip these two waits, and no other rule")
}

func (o *options) fixes(fixing *pflag.FlagSet) {
	fixing.BoolVar(&o.fix, "fix", false, "take each proven leftover one step further, after a question for each")
	fixing.BoolVar(&o.yes, "yes", false, "with --fix: ask no questions")
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
