package main

import (
	goflag "flag"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	clientfeatures "k8s.io/client-go/features"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/cmd/internal/help"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/driver"
)

// version is set when the program is built: -ldflags "-X main.version=v1.2.3".
var version string

// options are the flags as they were given.
type options struct {
	endpoint       string
	mode           string
	metadataURL    string
	nodeID         string
	zone           string
	clusterID      string
	clusterUID     string
	credentialsDir string
	metricsAddress string
	stopTimeout    time.Duration
	deviceDir      string
	maxVolumes     int
	formatLimit    int
	kubernetesNode string
	adoptHalfMade  bool
	checkLeases    bool
	requireImport  bool
}

const longHelp = `csi-driver is the CSI driver for UpCloud block storage (` + driver.Name + `).

The controller makes, deletes, attaches and detaches volumes through the UpCloud API.
The node service formats and mounts them on the server it runs on; it needs root, and
no credentials of UpCloud.

The controller takes its credentials from --credentials-dir, or from the environment:
  UPCLOUD_TOKEN                          an API token, or
  UPCLOUD_USERNAME and UPCLOUD_PASSWORD  an API user
  UPCLOUD_DEBUG_API_BASE_URL             another API than https://api.upcloud.com`

const examples = `  # The controller, beside the sidecars of Kubernetes
  UPCLOUD_TOKEN=ucat_... csi-driver --mode controller --zone fi-hel1 --cluster-id production

  # The node service, on a server with metadata enabled
  csi-driver --mode node --endpoint unix:///csi/csi.sock

  # Both in one process, against a simulated UpCloud
  UPCLOUD_USERNAME=simulator UPCLOUD_PASSWORD=simulator UPCLOUD_DEBUG_API_BASE_URL=http://127.0.0.1:8100 \
    csi-driver --mode all --endpoint unix:///tmp/csi.sock --zone fi-hel1 --node-id 00f7d68b-...`

func newCommand() *cobra.Command {
	var opts options
	var showVersion bool
	command := &cobra.Command{
		Use:           "csi-driver",
		Short:         "CSI driver for UpCloud block storage",
		Long:          longHelp,
		Example:       examples,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(command *cobra.Command, _ []string) error {
			if showVersion {
				fmt.Fprintln(command.OutOrStdout(), "csi-driver", programVersion())
				return nil
			}
			return run(command.Context(), opts)
		},
	}
	command.CompletionOptions.DisableDefaultCmd = true
	general := help.NewFlagSet()
	logging(general)
	general.BoolVar(&showVersion, "version", false, "print the version and exit")
	general.BoolP("help", "h", false, "print this help and exit")
	help.Set(command, append(opts.flags(), help.Section{Title: "General", Flags: general}))
	return command
}

func (o *options) flags() []help.Section {
	serving := help.NewFlagSet()
	serving.StringVar(&o.endpoint, "endpoint", "unix:///csi/csi.sock", "unix `socket` to serve CSI on")
	serving.StringVar(&o.mode, "mode", string(driver.ModeAll), "services to offer: controller, node or all")
	serving.StringVar(&o.metricsAddress, "metrics-address", "",
		"`host:port` to serve /metrics, /healthz (it works) and /readyz (it is of use) on over HTTP, such as :9808; "+
			"empty for none")

	serving.DurationVar(&o.stopTimeout, "stop-timeout", driver.DefaultStopTimeout,
		"how long calls in flight may take once the end is asked for with SIGTERM; programs that work on a disk then get 5 s "+
			"more; a format ends with the driver and is begun anew by the next. Kubernetes gives both 30 s")

	controller := help.NewFlagSet()
	controller.StringVar(&o.credentialsDir, "credentials-dir", "",
		"`folder` with the file token, or with the files username and password, such as a mounted Secret; "+
			"read again when they change, and used instead of the environment")
	controller.StringVar(&o.clusterID, "cluster-id", "",
		"`name` of the cluster, unique in the account; becomes the label csi-cluster of volumes, and keeps clusters "+
			"from taking each other's volumes for their own")
	controller.StringVar(&o.clusterUID, "cluster-uid", "",
		"`UID` of the cluster's namespace kube-system; becomes the label csi-cluster-uid of volumes and snapshots, by which "+
			"upcloud-doctor knows what this cluster made; empty to ask the API server, where the controller is a Pod")
	controller.BoolVar(&o.adoptHalfMade, "adopt-half-made", false,
		"while moving from UpCloud's own driver: take over the disks that it made for claims and never told Kubernetes of, "+
			"in place of making others; lists the account's disks once a minute while volumes are made")

	controller.BoolVar(&o.requireImport, "require-import-label", false,
		"attach disks and restore backups that were made by hand only if an administrator has set their label "+cloud.LabelImport+
			" in the UpCloud account; without this flag a PersistentVolume that names such a disk is enough to attach it")
	controller.BoolVar(&o.checkLeases, "check-leases", true,
		"in a Pod of Kubernetes: change the account for a sidecar only while this Pod holds the sidecar's lease; false where the "+
			"sidecars run in another Pod than the driver")

	where := help.NewFlagSet()
	where.StringVar(&o.metadataURL, "metadata-url", "http://169.254.169.254",
		"`URL` of the metadata service, which tells the server and the zone")
	where.StringVar(&o.nodeID, "node-id", "",
		"`UUID` of the server, for where there is no metadata service")
	where.StringVar(&o.zone, "zone", "",
		"`zone` such as fi-hel1; for the controller the one that volumes are in by default, for the node the server's, "+
			"for where there is no metadata service")

	node := help.NewFlagSet()
	node.StringVar(&o.deviceDir, "device-dir", "/dev/disk/by-id", "`folder` with the links to disks by serial number")
	node.IntVar(&o.maxVolumes, "max-volumes", 0,
		"how many volumes the server can have at once; 0 for UpCloud's limits (16 disks, or 24 disks and network "+
			"interfaces) less the disks and interfaces that are not the driver's, counted each time that it is asked")
	node.IntVar(&o.formatLimit, "format-limit", disk.DefaultFormatLimit,
		"how many volumes are formatted on the server at a time; others wait. A disk that does not answer is not counted")
	node.StringVar(&o.kubernetesNode, "kubernetes-node", "",
		"`name` of the Node of this server, for the node service in a Pod: it then takes the taint "+driver.TaintNotReady+
			" off the Node when the kubelet has registered the driver, and knows for sure which disks are volumes; "+
			"empty outside Kubernetes")
	return []help.Section{
		{Title: "Serving", Flags: serving},
		{Title: "Where it runs", Flags: where},
		{Title: "Controller", Flags: controller},
		{Title: "Node", Flags: node},
	}
}

// logging takes from klog's many flags the ones that are of use here.
func logging(flags *pflag.FlagSet) {
	all := goflag.NewFlagSet("klog", goflag.ContinueOnError)
	klog.InitFlags(all)
	// client-go tells each of its feature gates when they are first asked for, while nothing is logged yet: not worth a line.
	clientfeatures.FeatureGates().Enabled(clientfeatures.WatchListClient)
	level := pflag.PFlagFromGoFlag(all.Lookup("v"))
	level.Usage = "log `level`: 0 errors and start-up, 2 changes, 5 every call and its request"
	level.DefValue = "2"
	if err := level.Value.Set(level.DefValue); err != nil {
		panic(err) // 2 is a level
	}
	flags.AddFlag(level)
	flags.AddGoFlag(all.Lookup("vmodule"))
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
