package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/driver"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/kubenode"
)

// run builds the driver from the options and serves until ctx is done. Its errors are what the user reads: one line
// that names the setting and the remedy.
func run(ctx context.Context, opts options) error {
	mode, err := driver.ParseMode(opts.mode)
	if err != nil {
		return fmt.Errorf("--mode: %w", err)
	}
	if opts.formatLimit < 1 {
		return fmt.Errorf("invalid --format-limit %d: must be 1 or more", opts.formatLimit)
	}
	if opts.maxVolumes < 0 {
		return fmt.Errorf("--max-volumes: %d is negative; give the number of volumes, or 0 for UpCloud's limits", opts.maxVolumes)
	}
	if opts.stopTimeout <= 0 {
		return fmt.Errorf("--stop-timeout: %s is no time in which a call could end; give one such as %s", opts.stopTimeout,
			driver.DefaultStopTimeout)
	}
	ctx = klog.NewContext(ctx, klog.Background())
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	account, err := connect(mode, opts, registry)
	if err != nil {
		return err
	}
	if account != nil {
		defer account.Close()
		stop, err := startClusterUID(ctx, opts.clusterUID, account)
		if err != nil {
			return err
		}
		defer stop()
	}
	config, err := configure(ctx, mode, opts, account, registry)
	if err != nil {
		return err
	}
	program, err := driver.New(config)
	if err != nil {
		return err
	}
	listener, err := program.Listen(ctx)
	if err != nil {
		return err
	}
	status, err := startStatus(opts, program, registry)
	if err != nil {
		listener.Close()
		return err
	}
	defer status.stop()
	return program.Serve(ctx, listener)
}

// connect makes the UpCloud account; nil in the mode node, which has nothing to ask it.
func connect(mode driver.Mode, opts options, registry prometheus.Registerer) (*cloud.Cloud, error) {
	if !mode.Controller() {
		return nil, nil
	}
	config, err := cloud.ConfigFromEnv()
	if err != nil {
		return nil, err
	}
	if opts.credentialsDir == "" && config.Token == "" && config.Username == "" {
		return nil, errors.New("no UpCloud credentials: set UPCLOUD_TOKEN, or UPCLOUD_USERNAME and UPCLOUD_PASSWORD, or --credentials-dir")
	}
	config.CredentialsDir = opts.credentialsDir
	config.ClusterID = opts.clusterID
	config.AdoptHalfMade = opts.adoptHalfMade
	config.RequireImportLabel = opts.requireImport
	if config.AttachedBefore, err = attachedBefore(); err != nil {
		return nil, err
	}
	config.UserAgent = "upcloud-csi-driver/" + programVersion()
	config.Registerer = registry
	if opts.checkLeases {
		leases, err := newSidecarLeases()
		if err != nil {
			return nil, fmt.Errorf("--check-leases: %w", err)
		}
		if leases != nil {
			config.BeforeChange = leases.check
		}
	}
	return cloud.New(config)
}

// attachedBefore asks Kubernetes whether csi-attacher has recorded that it attached a volume; nil outside of Kubernetes.
func attachedBefore() (func(context.Context, string) (bool, error), error) {
	config, err := rest.InClusterConfig()
	if errors.Is(err, rest.ErrNotInCluster) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	attachments, err := kubenode.NewAttachments(config)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, volumeID string) (bool, error) {
		return attachments.Attached(ctx, driver.Name, volumeID)
	}, nil
}

// configure asks who and where we are, and checks that the account can be used.
func configure(ctx context.Context, mode driver.Mode, opts options, account *cloud.Cloud, registry prometheus.Registerer) (driver.Config, error) {
	self, err := driver.Identify(ctx, mode, opts.metadataURL, opts.nodeID, opts.zone)
	if err != nil {
		return driver.Config{}, err
	}
	config := driver.Config{
		Endpoint: opts.endpoint, Mode: mode, Version: programVersion(),
		Zone: self.Zone, NodeID: self.NodeID, Cloud: account, MaxVolumes: opts.maxVolumes, Registerer: registry,
		StopTimeout: opts.stopTimeout,
	}
	if account != nil {
		if err := check(ctx, account, self.Zone); err != nil {
			return driver.Config{}, err
		}
	}
	if !mode.Node() {
		return config, nil
	}
	config.Interfaces = self.Interfaces
	if opts.kubernetesNode != "" {
		if config.Kubernetes, err = kubenode.InCluster(opts.kubernetesNode); err != nil {
			return driver.Config{}, fmt.Errorf("--kubernetes-node: %w; leave it out where the driver is no Pod", err)
		}
	}
	config.Disk, err = disk.New(disk.Config{DeviceDir: opts.deviceDir, FormatLimit: opts.formatLimit, Registerer: registry})
	return config, err
}

// checkTimeout is how long the API may take to answer at start-up, retries included, before whoever waits is told.
const checkTimeout = 30 * time.Second

// check asks the API two questions: whether the account can be used, and whether the zone exists.
func check(ctx context.Context, account *cloud.Cloud, zone string) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if err := account.Check(ctx); err != nil {
		return err
	}
	err := account.CheckZone(ctx, zone)
	if errors.Is(err, cloud.ErrInvalid) {
		return fmt.Errorf("--zone: %w", err)
	}
	return err
}
