package main

import (
	"github.com/spf13/cobra"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/cmd/internal/help"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/doctor"
)

const balancersHelp = `upcloud-doctor load-balancers finds what the ccm of a cluster left behind, and what the cluster misses.

In the account: load balancers, components on shared load balancers, and certificate bundles whose Service is
gone; certificate bundles that their Service no longer asks for; load balancers made to be shared that nobody
uses, that have not come up, or that claim to be a Service's beside the one that it uses. In Kubernetes:
Services whose load balancer is gone.

It changes nothing without --fix. With it, load balancers, components and certificates whose Service is gone
are removed from the account, after a question for each. What is younger than --safety-age, another cluster's,
named by any Service, in use, or carries what was not made for its Service is kept. Kubernetes is only read.

Credentials for UpCloud come from --credentials-dir, or from the environment:
  UPCLOUD_TOKEN                          an API token, or
  UPCLOUD_USERNAME and UPCLOUD_PASSWORD  an API user
  UPCLOUD_DEBUG_API_BASE_URL             another API than https://api.upcloud.com

Exit status: 0 nothing found, or nothing left after --fix; 1 an error; 3 findings.`

const balancersExamples = `  # What was left behind by the cluster of the present kubectl context
  UPCLOUD_TOKEN=ucat_... upcloud-doctor load-balancers --cluster-id production

  # Remove it, with a question for each
  upcloud-doctor load-balancers --cluster-id production --fix

  # Of a ccm that has no clusterID in its configuration, if no other cluster of the account has that name
  upcloud-doctor load-balancers --cluster-name production --fix --unclaimed remove`

func newBalancersCommand() *cobra.Command {
	opts := options{balancers: true}
	command := &cobra.Command{
		Use: "load-balancers [flags]", Short: "Find load balancers, their parts and certificates left behind or missed",
		Long: balancersHelp, Example: balancersExamples, Args: cobra.NoArgs,
		SilenceUsage: true, SilenceErrors: true, DisableFlagsInUseLine: true,
		RunE: func(command *cobra.Command, _ []string) error {
			return run(command.Context(), opts, streams{
				in: command.InOrStdin(), out: command.OutOrStdout(), err: command.ErrOrStderr(),
			})
		},
	}
	help.Set(command, opts.balancerFlags())
	return command
}

func (o *options) balancerFlags() []help.Section {
	account, kubernetes, fixing, general := help.NewFlagSet(), help.NewFlagSet(), help.NewFlagSet(), help.NewFlagSet()
	o.common(account, kubernetes, fixing, general)
	account.StringVar(&o.clusterID, "cluster-id", "",
		"clusterID of ccm's configuration file: only what carries that `ID` is taken for this cluster's")
	account.StringVar(&o.clusterName, "cluster-name", "kubernetes",
		"clusterName of ccm's configuration file, or else its --cluster-name: what carries another `name` is not this cluster's")
	account.StringVar(&o.unclaimed, "unclaimed", string(doctor.UnclaimedReport),
		"`what` to do with what carries the cluster's name and no cluster ID: report, ignore, or remove with --fix, if no other "+
			"cluster of the account has that name")
	fixing.BoolVar(&o.fix, "fix", false, "remove what was left behind, after a question for each")
	return sections(account, kubernetes, fixing, general)
}
