// Command cluster runs the local Kubernetes of this project and shows the main job on it. `make demo`, `make up` and
// `make demo-down` call it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/demo"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/e2e"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/local"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/machine"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/steps"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/suite"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/toolchain"
)

type options struct {
	project string
	nodes   int
	profile string
	keep    bool
	only    []string // groups of the end-to-end tests
	short   bool     // leave the long specs out
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
	endToEnd := &cobra.Command{Use: "e2e", Short: "Bring a cluster up, take the examples through their lives on it, take it down",
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return o.e2e(cmd.Context()) }}
	endToEnd.Flags().BoolVar(&o.keep, "keep", false, "leave the cluster up")
	endToEnd.Flags().StringSliceVar(&o.only, "only", nil, "run these groups of checks alone: "+strings.Join(e2e.Groups(), ", "))
	loadBalancers := &cobra.Command{Use: "e2e-lb", Short: "Bring a cluster up, run Kubernetes' own specs of load balancers on it, take it down",
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return o.loadBalancers(cmd.Context()) }}
	loadBalancers.Flags().BoolVar(&o.keep, "keep", false, "leave the cluster up")
	loadBalancers.Flags().BoolVar(&o.short, "short", false, "leave out the specs that take more than ten minutes")
	root.AddCommand(demonstrate, endToEnd, loadBalancers,
		&cobra.Command{Use: "up", Short: "Bring a cluster up, with the shipped manifests applied, and leave it up",
			Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return o.up(cmd.Context()) }},
		&cobra.Command{Use: "down", Short: "Take down the cluster that runs on this machine, or what is left of one",
			Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return local.Down(cmd.Context()) }},
		&cobra.Command{Use: "kubernetes", Short: "Build etcd, Kubernetes and kubectl if they are not in the cache, and print their folder",
			Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return o.printKubernetes(cmd.Context()) }},
		&cobra.Command{Use: "supervise", Hidden: true, Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error { return local.Supervise(os.Stdin, os.Stdout) }},
		&cobra.Command{Use: "machine CONFIG", Hidden: true, Args: cobra.ExactArgs(1),
			RunE: func(_ *cobra.Command, args []string) error { return machine.RunInit(args[0]) }})
	return root
}

func (o options) demo(ctx context.Context) error {
	return o.show(ctx, "demo", func(ctx context.Context, runner *steps.Runner) steps.Result { return demo.Run(ctx, runner, o.keep) })
}

func (o options) e2e(ctx context.Context) error {
	for _, name := range o.only {
		if !slices.Contains(e2e.Groups(), name) {
			return fmt.Errorf("--only: there is no group %q: use some of %s", name, strings.Join(e2e.Groups(), ", "))
		}
	}
	return o.show(ctx, "e2e", func(ctx context.Context, runner *steps.Runner) steps.Result { return e2e.Run(ctx, runner, o.only) })
}

func (o options) loadBalancers(ctx context.Context) error {
	project, err := filepath.Abs(o.project)
	if err != nil {
		return err
	}
	config := suite.Config{Output: filepath.Join(project, "build", "e2e-lb"), Short: o.short}
	withSuite := func(ctx context.Context, cache *toolchain.Cache, paths toolchain.Paths, cluster *local.Config) error {
		programs, err := cache.Suite(ctx, paths)
		if err != nil {
			return err
		}
		images, err := cache.SuiteImages(ctx, programs)
		config.Programs, cluster.CoreDNS, cluster.Images = programs, filepath.Join(programs, "coredns"), append(cluster.Images, images)
		return err
	}
	return o.showOn(ctx, "e2e-lb", []buildStep{{"Kubernetes' own end-to-end tests", withSuite}},
		func(ctx context.Context, runner *steps.Runner) steps.Result { return suite.Run(ctx, runner, config) })
}

// show brings a cluster up, runs steps on it and takes it down, unless it is to be kept.
func (o options) show(ctx context.Context, name string, run func(context.Context, *steps.Runner) steps.Result) error {
	return o.showOn(ctx, name, nil, run)
}

// showOn does so on a cluster that has more than others.
func (o options) showOn(ctx context.Context, name string, more []buildStep,
	run func(context.Context, *steps.Runner) steps.Result) error {
	progress := newProgress()
	handle, runner, err := o.launch(ctx, progress, more...)
	if err != nil {
		return err
	}
	result := run(ctx, runner)
	if o.keep {
		if err := handle.Keep(); err != nil {
			return err
		}
		o.usage(runner.Status)
	} else {
		progress.say("taking everything down")
		if err := handle.Down(); err != nil {
			result.Failed++
			progress.say("taking the cluster down failed: " + err.Error())
		}
	}
	fmt.Printf("%s: %d checks passed, %d failed\n", name, result.Passed, result.Failed)
	if result.Failed > 0 {
		return fmt.Errorf("the %s failed; logs: %s", name, runner.Status.LogDir)
	}
	return nil
}

func (o options) up(ctx context.Context) error {
	progress := newProgress()
	handle, runner, err := o.launch(ctx, progress)
	if err != nil {
		return err
	}
	if err := runner.Apply(ctx); err != nil {
		return err
	}
	progress.say("applied the shipped manifests")
	if err := handle.Keep(); err != nil {
		return err
	}
	o.usage(runner.Status)
	return nil
}

func (o options) printKubernetes(ctx context.Context) error {
	project, err := filepath.Abs(o.project)
	if err != nil {
		return err
	}
	cache, err := toolchain.OpenCache(func(name string) {
		fmt.Fprintln(os.Stderr, "building "+name+": it is not in the cache, this may take minutes")
	})
	if err != nil {
		return err
	}
	dir, err := cache.Kubernetes(ctx, toolchain.Paths{Project: project})
	if err == nil {
		fmt.Println(dir)
	}
	return err
}

// buildStep is something that not every cluster has.
type buildStep struct {
	name string
	run  func(context.Context, *toolchain.Cache, toolchain.Paths, *local.Config) error
}

// launch builds what is missing and starts the cluster.
func (o options) launch(ctx context.Context, progress *progress, more ...buildStep) (*local.Handle, *steps.Runner, error) {
	if err := local.CheckFree(ctx, 5*time.Second); err != nil {
		return nil, nil, err
	}
	config, err := o.build(ctx, progress, more)
	if err != nil {
		return nil, nil, err
	}
	handle, err := local.Launch(ctx, config, progress.say)
	if err != nil {
		return nil, nil, err
	}
	status, err := local.ReadStatus()
	if err != nil {
		return nil, nil, err
	}
	runner, err := steps.New(steps.Config{Status: status, Project: o.project, Nodes: o.nodes, Report: progress.say})
	return handle, runner, err
}

func (o options) build(ctx context.Context, progress *progress, more []buildStep) (local.Config, error) {
	project, err := filepath.Abs(o.project)
	if err != nil {
		return local.Config{}, err
	}
	output := filepath.Join(project, "build", "cluster")
	paths := toolchain.Paths{Project: project, Output: filepath.Join(output, "bin")}
	config := local.Config{Programs: paths.Output, OutputDir: output, Nodes: o.nodes, Profile: o.profile, PauseImage: toolchain.PauseImage}
	cache, err := toolchain.OpenCache(func(name string) {
		progress.say("building " + name + ": it is not in the cache, this may take minutes")
	})
	if err != nil {
		return config, err
	}
	var sidecars, base, foreign, own string
	type step struct {
		name string
		run  func() error
	}
	steps := []step{
		{"Kubernetes " + toolchain.KubernetesVersion, func() (err error) {
			config.Kubernetes, err = cache.Kubernetes(ctx, paths)
			return err
		}},
		{"CSI sidecars", func() (err error) { sidecars, err = cache.Sidecars(ctx, paths); return err }},
		{"containerd", func() (err error) { config.Containerd, err = cache.Containerd(ctx); return err }},
		{"the project's programs", func() error { return toolchain.Programs(ctx, paths) }},
		{"the driver image's Debian packages", func() (err error) { base, err = cache.DriverBase(ctx, paths); return err }},
		{"container images", func() (err error) {
			if foreign, err = cache.ForeignImages(ctx, sidecars); err != nil {
				return err
			}
			own, err = toolchain.ProjectImages(paths, base)
			config.Images = append(config.Images, foreign, own)
			return err
		}},
	}
	for _, extra := range more {
		steps = append(steps, step{extra.name, func() error { return extra.run(ctx, cache, paths, &config) }})
	}
	for _, step := range steps {
		begin := time.Now()
		if err := step.run(); err != nil {
			return config, fmt.Errorf("build %s: %w", step.name, err)
		}
		progress.say(fmt.Sprintf("built %s (%.1f s)", step.name, time.Since(begin).Seconds()))
	}
	return config, nil
}

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
