package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/cmd/internal/help"
)

const balancersHelp = `upcloud-doctor load-balancers finds what the ccm of a cluster left behind, and what the cluster misses.

In the account: load balancers, components on shared load balancers, and certificate bundles whose Service is
gone, or went to another controller; certificate bundles that their Service no longer asks for; load balancers
made to be shared that no Service uses, that have not come up, or that carry the labels of a Service which uses
another. In Kubernetes: Services whose load balancer is gone.

It changes nothing without --fix. With it, load balancers and certificates with this cluster's UID whose Service
the cluster's record saw being deleted go one step further: they are marked at the first look, put into quarantine
a --safety-age later, and removed when the --quarantine is over. A load balancer that has members, a floating IP
address, or anything that was not made for its Service is in use and stays. What others share is never touched.` + exitStatuses

const balancersExamples = `  # What was left behind by the cluster of the present kubectl context
  UPCLOUD_TOKEN=ucat_... upcloud-doctor load-balancers --cluster-id production

  # Remove it, with a question for each
  upcloud-doctor load-balancers --cluster-id production --fix`

func newBalancersCommand() *cobra.Command {
	opts := options{balancers: true}
	command := &cobra.Command{
		Use: "load-balancers [flags]", Short: "Find load balancers, their parts and certificates left behind or missed",
		Long: balancersHelp, Example: balancersExamples, Args: cobra.NoArgs,
		SilenceUsage: true, SilenceErrors: true, DisableFlagsInUseLine: true,
		RunE: func(command *cobra.Command, _ []string) error {
			return run(command, opts)
		},
	}
	help.Set(command, opts.balancerFlags())
	return command
}

func (o *options) balancerFlags() []help.Section {
	account, kubernetes, fixing, general := help.NewFlagSet(), help.NewFlagSet(), help.NewFlagSet(), help.NewFlagSet()
	o.common(account, kubernetes, general)
	o.waits(fixing)
	o.fixes(fixing)
	account.StringVar(&o.clusterID, "cluster-id", "", "clusterID of ccm's configuration file; checked against the labels of its load balancers")
	o.ofBalancers(account, kubernetes)
	o.treatmentOfUnclaimed(account)
	return sections(account, kubernetes, fixing, general)
}

// ofBalancers are the flags that say which load balancers are meant.
func (o *options) ofBalancers(account, kubernetes *pflag.FlagSet) {
	account.StringVar(&o.clusterName, "cluster-name", "kubernetes",
		"clusterName of ccm's configuration file, or else its --cluster-name: what carries another `name` is not this cluster's")
	kubernetes.StringVar(&o.class, "load-balancer-class", defaultClass, "loadBalancerClass that ccm serves besides Services without one")
}

// defaultClass is ccm's.
const defaultClass = "upcloud.com/load-balancer"
