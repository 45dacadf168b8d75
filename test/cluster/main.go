// Command cluster runs the local Kubernetes of this project and shows the main job on it. `make demo`, `make up` and
// `make demo-down` call it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/demo"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/local"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/machine"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/toolchain"
)

type options struct {
	project string
	nodes   int
	profile string
	keep    bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var o options
	root := &cobra.Command{
		Use:           "cluster",
		Short:         "A real Kubernetes on this machine, on a simulated UpCloud",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.PersistentFlags().StringVar(&o.project, "project", ".", "root of the project's work tree")
	root.PersistentFlags().IntVar(&o.nodes, "nodes", 2, "number of nodes")
	root.PersistentFlags().StringVar(&o.profile, "profile", "fast", "the simulator's time profile: instant, fast or realistic")
	demonstrate := &cobra.Command{Use: "demo", Short: "Bring a cluster up, show the main job on it, take it down",
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return o.demo(cmd.Context()) }}
	demonstrate.Flags().BoolVar(&o.keep, "keep", false, "leave the cluster up")
	root.AddCommand(demonstrate,
		&cobra.Command{Use: "up", Short: "Bring a cluster up, with the shipped manifests applied, and leave it up",
			Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return o.up(cmd.Context()) }},
		&cobra.Command{Use: "down", Short: "Take down the cluster that runs on this machine, or what is left of one",
			Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return local.Down(cmd.Context()) }},
		&cobra.Command{Use: "supervise", Hidden: true, Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error { return local.Supervise(os.Stdin, os.Stdout) }},
		&cobra.Command{Use: "machine CONFIG", Hidden: true, Args: cobra.ExactArgs(1),
			RunE: func(_ *cobra.Command, args []string) error { return machine.RunInit(args[0]) }})
	return root
}

func (o options) demo(ctx context.Context) error {
	progress := newProgress()
	handle, status, err := o.launch(ctx, progress)
	if err != nil {
		return err
	}
	result := demo.Run(ctx, demo.Config{Status: status, Overlay: o.overlay(), Nodes: o.nodes, KeepServers: o.keep, Report: progress.say})
	switch {
	case result.Failed > 0 && !o.keep:
		progress.say("logs: " + status.LogDir)
		fallthrough
	case !o.keep:
		progress.say("taking everything down")
		if err := handle.Down(); err != nil {
			result.Failed++
			progress.say("taking the cluster down failed: " + err.Error())
		}
	default:
		if err := handle.Keep(); err != nil {
			return err
		}
		o.usage(status)
	}
	fmt.Printf("demo: %d checks passed, %d failed\n", result.Passed, result.Failed)
	if result.Failed > 0 {
		return fmt.Errorf("the demo failed; logs: %s", status.LogDir)
	}
	return nil
}

func (o options) up(ctx context.Context) error {
	progress := newProgress()
	handle, status, err := o.launch(ctx, progress)
	if err != nil {
		return err
	}
	if err := demo.Install(ctx, status, o.overlay()); err != nil {
		return err
	}
	progress.say("applied the shipped manifests")
	if err := handle.Keep(); err != nil {
		return err
	}
	o.usage(status)
	return nil
}

// launch builds what is missing and starts the cluster.
func (o options) launch(ctx context.Context, progress *progress) (*local.Handle, local.Status, error) {
	if err := local.CheckFree(); err != nil {
		return nil, local.Status{}, err
	}
	config, err := o.build(ctx, progress)
	if err != nil {
		return nil, local.Status{}, err
	}
	handle, err := local.Launch(ctx, config, progress.say)
	if err != nil {
		return nil, local.Status{}, err
	}
	status, err := local.ReadStatus()
	return handle, status, err
}

func (o options) build(ctx context.Context, progress *progress) (local.Config, error) {
	project, err := filepath.Abs(o.project)
	if err != nil {
		return local.Config{}, err
	}
	output := filepath.Join(project, "build", "cluster")
	paths := toolchain.Paths{Project: project, Output: filepath.Join(output, "bin")}
	config := local.Config{Programs: paths.Output, OutputDir: output, Nodes: o.nodes, Profile: o.profile, PauseImage: toolchain.PauseImage}
	cache, err := toolchain.OpenCache()
	if err != nil {
		return config, err
	}
	var sidecars, base, foreign, own string
	steps := []struct {
		name string
		run  func() error
	}{
		{"Kubernetes " + toolchain.KubernetesVersion + " (minutes if not cached)", func() (err error) {
			config.Kubernetes, err = cache.Kubernetes(ctx, paths)
			return err
		}},
		{"CSI sidecars", func() (err error) { sidecars, err = cache.Sidecars(ctx, paths); return err }},
		{"containerd", func() (err error) { config.Containerd, err = cache.Containerd(ctx); return err }},
		{"csi-driver, ccm and upcloud-sim", func() error { return toolchain.Programs(ctx, paths) }},
		{"the driver image's Debian packages", func() (err error) { base, err = cache.DriverBase(ctx, paths); return err }},
		{"container images", func() (err error) {
			if foreign, err = cache.ForeignImages(ctx, sidecars); err != nil {
				return err
			}
			own, err = toolchain.ProjectImages(paths, base)
			return err
		}},
	}
	for _, step := range steps {
		begin := time.Now()
		if err := step.run(); err != nil {
			return config, fmt.Errorf("build %s: %w", step.name, err)
		}
		progress.say(fmt.Sprintf("built %s (%.1f s)", step.name, time.Since(begin).Seconds()))
	}
	config.Images = []string{foreign, own}
	return config, nil
}

func (o options) overlay() string { return filepath.Join(o.project, "test", "cluster", "overlay") }

func (o options) usage(status local.Status) {
	fmt.Printf(`
The cluster is up. To use it:
  export KUBECONFIG=%s
  %s get nodes,pods -A -o wide
The simulated UpCloud (user %s, password %s):
  curl -u %s:%s %s/1.3/storage/private
Public addresses are reached from inside the simulated internet:
  nsenter --net=/proc/%d/ns/net curl http://ADDRESS/
Logs: %s
To take it down: make demo-down

`, status.Kubeconfig, status.Kubectl, status.Username, status.Password, status.Username, status.Password, status.SimulatorURL,
		status.InternetPID, status.LogDir)
}

// progress prints lines with the time since the start.
type progress struct{ begin time.Time }

func newProgress() *progress { return &progress{time.Now()} }

func (p *progress) say(line string) {
	fmt.Printf("[%6.1f s] %s\n", time.Since(p.begin).Seconds(), line)
}
