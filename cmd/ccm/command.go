package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apiserveroptions "k8s.io/apiserver/pkg/server/options"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/cloud-provider/app"
	appconfig "k8s.io/cloud-provider/app/config"
	"k8s.io/cloud-provider/names"
	"k8s.io/cloud-provider/options"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/metrics/legacyregistry"
	netutils "k8s.io/utils/net"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/cmd/internal/logs"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/instances/providerid"
)

// version is set when the program is built: -ldflags "-X main.version=v1.2.3".
var version string

const longHelp = `ccm is the cloud controller manager for UpCloud.

It initializes the Nodes of a cluster whose kubelets run with --cloud-provider=external: provider ID, addresses, zone,
instance type. It deletes the Nodes of servers that are gone, and taints those of stopped ones. Each Service of type
LoadBalancer gets an UpCloud Managed Load Balancer. With --configure-cloud-routes, what is for a node's Pods is led to that
node by static routes on the router of the nodes' private network.

Credentials come from --credentials-dir, or from --cloud-config, or from the environment:
  UPCLOUD_TOKEN                          an API token (or UPCLOUD_API_TOKEN), or
  UPCLOUD_USERNAME and UPCLOUD_PASSWORD  an API user (or UPCLOUD_API_USER and UPCLOUD_API_PASSWORD)
  UPCLOUD_DEBUG_API_BASE_URL             another API than https://api.upcloud.com

Examples:
  # In a Pod of the cluster, with a mounted secret that has the keys username and password, or token
  ccm --credentials-dir=/etc/upcloud

  # With the configuration file of UpCloud's own cloud controller manager
  ccm --cloud-config=/config/config.yaml

  # From outside the cluster, against a simulated UpCloud
  UPCLOUD_USERNAME=simulator UPCLOUD_PASSWORD=simulator UPCLOUD_DEBUG_API_BASE_URL=http://127.0.0.1:8100 \
    ccm --kubeconfig=$HOME/.kube/config --leader-elect=false`

const (
	// checkTimeout bounds the first question to the UpCloud API.
	checkTimeout = 20 * time.Second
	// kubernetesTimeout is for how long the Kubernetes API is waited for without leader election.
	kubernetesTimeout = 20 * time.Second
)

// newCommand returns the controller manager of k8s.io/cloud-provider with UpCloud in it.
//
// The provider is made before the controller manager starts anything: that one would end with a dump of all goroutines
// where a sentence is wanted.
func newCommand(stop <-chan struct{}) *cobra.Command {
	var ours flags
	var showVersion bool
	var provider *provider
	sections := cliflag.NamedFlagSets{}
	ours.add(sections.FlagSet("UpCloud"))

	managerOptions, err := options.NewCloudControllerManagerOptions()
	if err != nil {
		panic(err) // only if the defaults of k8s.io/cloud-provider do not convert to its own types
	}
	setDefaults(managerOptions)
	manager := func(*appconfig.CompletedConfig) cloudprovider.Interface {
		logs.HideBodiesOfLogger() // the flags for logging are read by now
		return provider
	}
	command := app.NewCloudControllerManagerCommand(managerOptions, manager, constructors(&ours.loadBalancerClass),
		names.CCMControllerAliases(), sections, stop)

	command.Use, command.Short, command.Long = "ccm", "Cloud controller manager for UpCloud", longHelp
	command.SilenceUsage, command.SilenceErrors = true, true
	command.CompletionOptions.DisableDefaultCmd = true
	command.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return fmt.Errorf("%w; see ccm --help", err)
	})
	replaceVersionFlag(command, &showVersion)
	// The library's default is true. Most clusters have an overlay network, and a router without room for their routes.
	setDefault(command, "configure-cloud-routes", "false")
	setHelp(command)
	command.AddCommand(newAdmissionCommand())

	run := command.RunE
	command.RunE = func(command *cobra.Command, args []string) error {
		if showVersion {
			fmt.Fprintln(command.OutOrStdout(), "ccm", programVersion())
			return nil
		}
		var err error
		if provider, err = newCheckedProvider(command.Context(), ours, managerOptions); err != nil {
			return err
		}
		defer provider.Close()
		stopServing, err := (&readiness{check: provider.cloud.Check}).serve(managerOptions.SecureServing.BindAddress, ours.readinessPort)
		if err != nil {
			return err
		}
		defer stopServing()
		if err := run(command, args); err != nil {
			return &shownError{err}
		}
		return nil
	}
	return command
}

// setDefaults makes the defaults of the controller manager fit UpCloud.
func setDefaults(o *options.CloudControllerManagerOptions) {
	o.KubeCloudShared.CloudProvider.Name = providerid.Scheme
	// They are shared out between namespaces (pkg/fairness); most of them wait for the UpCloud API.
	o.ServiceController.ConcurrentServiceSyncs = 100
	// A new node takes one call of the UpCloud API and three of Kubernetes': with so many at once, 500 of them take seconds.
	o.NodeController.ConcurrentNodeSyncs, o.NodeController.ConcurrentNodeStatusUpdates = 50, 10
	// That takes more than the 20 calls a second that the library lets through.
	o.Generic.ClientConnection.QPS, o.Generic.ClientConnection.Burst = 400, 2000
	// Without it, a cluster that has no role binding for it would get no controllers for want of metrics' access control.
	o.Authentication.TolerateInClusterLookupFailure = true
	// Webhooks are not offered.
	o.Webhook, o.WebhookServing = nil, nil
}

// newCheckedProvider makes the provider, and finds what is wrong with the settings while it can still be said in one
// sentence.
func newCheckedProvider(ctx context.Context, ours flags, manager *options.CloudControllerManagerOptions) (*provider, error) {
	if name := manager.KubeCloudShared.CloudProvider.Name; name != providerid.Scheme {
		return nil, fmt.Errorf("--cloud-provider=%s: this program serves %s: leave the flag out", name, providerid.Scheme)
	}
	if err := manager.Validate(app.ControllerNames(constructors(&ours.loadBalancerClass)), app.ControllersDisabledByDefault.List(),
		names.CCMControllerAliases(), app.AllWebhooks, app.DisabledByDefaultWebhooks); err != nil {
		return nil, fmt.Errorf("%w; see ccm --help", err)
	}
	podNetwork, err := checkRoutes(manager.KubeCloudShared)
	if err != nil {
		return nil, err
	}
	ours.routes = manager.KubeCloudShared.ConfigureCloudRoutes
	config, err := loadConfig(ours, manager.KubeCloudShared.CloudProvider.CloudConfigFile)
	if err != nil {
		return nil, err
	}
	for _, warning := range config.warnings {
		warn(warning)
	}
	if err := checkKubernetes(manager.Master, manager.Generic.ClientConnection.Kubeconfig); err != nil {
		return nil, err
	}
	if err := checkPort(manager.SecureServing.SecureServingOptions); err != nil {
		return nil, err
	}
	election := manager.Generic.LeaderElection
	leadership := newLeadership(election.ResourceName)
	config.cloud.UserAgent = "upcloud-ccm/" + programVersion()
	config.cloud.Registerer, config.instances.Registerer = legacyregistry.Registerer(), legacyregistry.Registerer()
	if config.routes != nil {
		config.routes.Registerer, config.routes.ClusterCIDRs = config.cloud.Registerer, podNetwork
	}
	config.cloud.RequestsPerSecond, config.cloud.Burst, config.cloud.Concurrency = requestsPerSecond, requestBurst, requestsAtOnce
	config.cloud.GroupConcurrency, config.cloud.TenantConcurrency = requestsOfGroup, requestsOfTenant
	if election.LeaderElect {
		config.cloud.BeforeChange, config.instances.BeforeGone = leadership.check, leadership.check
	} else if err := waitForKubernetes(ctx, manager); err != nil {
		return nil, err
	}
	client, err := cloud.New(config.cloud)
	if err != nil {
		return nil, err
	}
	if err := checkCloud(ctx, client); err != nil {
		client.Close()
		return nil, config.explain(err)
	}
	p, err := newProvider(client, config)
	if err != nil {
		client.Close()
		return nil, err
	}
	if election.LeaderElect {
		p.leadership, p.namespace = leadership, election.ResourceNamespace
	}
	return p, nil
}

// The limits of requests to the UpCloud API: 500 nodes that join at once each take one, and within seconds.
const (
	requestsPerSecond = 100
	requestBurst      = 500
	requestsAtOnce    = 64
	// What nodes, routes and load balancers may each have under way, so that the others' requests go on where theirs get no answer; and
	// what the load balancers of one namespace may.
	requestsOfGroup  = 48
	requestsOfTenant = 12
)

// checkCloud asks the API for the first time. What is wrong with the settings ends the program; an API that is down does
// not: it will be up again, and a program that is restarted with growing pauses would notice late.
func checkCloud(ctx context.Context, client *cloud.Cloud) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	err := client.Check(ctx)
	var failed *cloud.Error
	if errors.Is(err, cloud.ErrUnavailable) && errors.As(err, &failed) &&
		(failed.Status == 0 || failed.Status == http.StatusTooManyRequests || failed.Status >= http.StatusInternalServerError) {
		warn(err.Error() + "; going on, what needs the API is tried again until it answers")
		return nil
	}
	return err
}

func warn(text string) { fmt.Fprintln(os.Stderr, "ccm: warning:", oneLine(errors.New(text))) }

// checkRoutes returns the cluster's Pod network, and finds out whether --configure-cloud-routes has what it needs. The library would end
// with a stack.
func checkRoutes(shared *options.KubeCloudSharedOptions) ([]netip.Prefix, error) {
	if !shared.ConfigureCloudRoutes {
		return nil, nil
	}
	const remedy = "set it to what the kube-controller-manager has in --cluster-cidr, such as 10.244.0.0/16"
	if shared.ClusterCIDR == "" {
		return nil, errors.New("--configure-cloud-routes needs the cluster's Pod network in --cluster-cidr: " + remedy)
	}
	networks, err := netutils.ParseCIDRs(strings.Split(shared.ClusterCIDR, ","))
	if err != nil {
		return nil, fmt.Errorf("--cluster-cidr=%s: %w: %s", shared.ClusterCIDR, err, remedy)
	}
	if dual, _ := netutils.IsDualStackCIDRs(networks); len(networks) > 2 || len(networks) == 2 && !dual {
		return nil, fmt.Errorf("--cluster-cidr=%s: want one network, or one of IPv4 and one of IPv6", shared.ClusterCIDR)
	}
	var prefixes []netip.Prefix
	for _, network := range networks {
		prefix, err := netip.ParsePrefix(network.String())
		if err != nil {
			return nil, fmt.Errorf("--cluster-cidr=%s: %w: %s", shared.ClusterCIDR, err, remedy)
		}
		prefixes = append(prefixes, prefix)
	}
	return prefixes, nil
}

// checkPort finds out whether the port of health and metrics is free: it is not when a second copy runs on one machine.
func checkPort(o *apiserveroptions.SecureServingOptions) error {
	if o == nil || o.BindPort == 0 || o.PermitPortSharing || o.PermitAddressSharing || o.Listener != nil {
		return nil
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(o.BindAddress.String(), strconv.Itoa(o.BindPort)))
	if err != nil {
		return fmt.Errorf("--secure-port=%d on --bind-address=%s cannot be served: %w: stop what has the port, which may be another "+
			"ccm on this machine, or set --secure-port to a free one", o.BindPort, o.BindAddress, err)
	}
	return listener.Close()
}

// checkKubernetes finds out whether the API server's address is given at all, and in a form that can be read.
func checkKubernetes(master, kubeconfig string) error {
	switch {
	case kubeconfig != "":
		if _, err := os.Stat(kubeconfig); err != nil {
			return fmt.Errorf("--kubeconfig: %w", err)
		}
		switch _, err := clientcmd.BuildConfigFromFlags(master, kubeconfig); {
		case clientcmd.IsEmptyConfig(err): // its text tells of an environment variable that does nothing here
			return fmt.Errorf("--kubeconfig %s names no API server: give it a current-context with a cluster", kubeconfig)
		case err != nil:
			return fmt.Errorf("--kubeconfig %s: %w", kubeconfig, err)
		}
	case master == "":
		_, err := rest.InClusterConfig()
		if errors.Is(err, rest.ErrNotInCluster) {
			return errors.New("no Kubernetes API server is given: set --kubeconfig, or run in a Pod of the cluster")
		}
		if err != nil {
			return fmt.Errorf("the Pod's service account: %w; set automountServiceAccountToken to true, or --kubeconfig", err)
		}
	}
	return nil
}

// waitForKubernetes waits until the API server answers. With leader election that is part of the election; without it, the
// library would give up soon, with a dump of all goroutines.
func waitForKubernetes(ctx context.Context, manager *options.CloudControllerManagerOptions) error {
	config, err := clientcmd.BuildConfigFromFlags(manager.Master, manager.Generic.ClientConnection.Kubeconfig)
	if err != nil {
		return err
	}
	config.Timeout = checkTimeout / 4
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, kubernetesTimeout)
	defer cancel()
	for told := false; ; told = true {
		_, err := client.Discovery().ServerVersion()
		if err == nil {
			return nil
		}
		if apierrors.IsUnauthorized(err) || apierrors.IsForbidden(err) || ctx.Err() != nil {
			return fmt.Errorf("the Kubernetes API server at %s cannot be used: %w", config.Host, err)
		}
		if !told {
			warn(fmt.Sprintf("the Kubernetes API server at %s does not answer: %v; trying for %s", config.Host, err, kubernetesTimeout))
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

// replaceVersionFlag puts our version in the place of that of the Kubernetes libraries.
func replaceVersionFlag(command *cobra.Command, show *bool) {
	flag := command.Flags().Lookup("version")
	if flag == nil {
		command.Flags().BoolVar(show, "version", false, "print the version and exit")
		return
	}
	flag.Usage, flag.NoOptDefVal, flag.DefValue = "print the version and exit", "true", "false"
	flag.Value = (*boolValue)(show)
}

func setDefault(command *cobra.Command, name, value string) {
	if flag := command.Flags().Lookup(name); flag != nil && flag.Value.Set(value) == nil {
		flag.DefValue = value
	}
}

// programVersion is the version set at build time, or what the Go tool noted.
func programVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "dev"
}
