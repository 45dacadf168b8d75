package main

import (
	"context"

	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/cmd/internal/help"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/doctor"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/driver"
)

const routesHelp = `upcloud-doctor routes lists what the ccm of a cluster that is gone may have left on the account's routers.

Routes that a ccm of another cluster made, and whose next hop is no server's address, or a node of this cluster; routers that
a ccm made and that no network is attached to. It changes nothing: whose a route is, its name does not prove.` + exitStatuses

func newRoutesCommand() *cobra.Command {
	opts := options{driverName: driver.Name, unclaimed: string(doctor.UnclaimedReport)} // which it does not ask for
	command := &cobra.Command{
		Use: "routes [flags]", Short: "List routes and routers left behind", Long: routesHelp,
		Example: "  upcloud-doctor routes --cluster-id production",
		Args:    cobra.NoArgs, SilenceUsage: true, SilenceErrors: true, DisableFlagsInUseLine: true,
		RunE: func(command *cobra.Command, _ []string) error {
			return opts.connected(command, func(ctx context.Context, s sides) error {
				client, err := kubernetes.NewForConfig(s.kubernetes)
				if err != nil {
					return err
				}
				report, err := doctor.NewRoutes(doctor.RoutesConfig{Cloud: s.account, Kubernetes: client, ClusterID: opts.clusterID}).Examine(ctx)
				if err != nil {
					return err
				}
				return finish(report, opts, s.out, nil)
			})
		},
	}
	account, cluster, general := help.NewFlagSet(), help.NewFlagSet(), help.NewFlagSet()
	opts.common(account, cluster, general)
	account.StringVar(&opts.clusterID, "cluster-id", "", "clusterID of ccm's configuration file: routes of that `ID` are this cluster's")
	help.Set(command, []help.Section{{Title: "UpCloud", Flags: account}, {Title: "Kubernetes", Flags: cluster}, {Title: "General", Flags: general}})
	return command
}
