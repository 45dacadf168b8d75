package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/doctor"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
)

// errFindings says that there are findings, which have been printed.
var errFindings = errors.New("there are findings")

type streams struct {
	in       io.Reader
	out, err io.Writer
}

// physician is a doctor of something.
type physician interface {
	Examine(context.Context) (*doctor.Report, error)
	Restore(ctx context.Context, ids []string) (*doctor.Report, error)
}

// run examines, goes on with what is proven if that is asked for, and prints. Its errors are what the user reads: one line that names
// the setting and the remedy.
func run(command *cobra.Command, opts options) error {
	return opts.with(command, func(ctx context.Context, physician physician, std streams) error {
		return treat(ctx, physician, opts, std)
	})
}

// sides are the account and the cluster, and where to print.
type sides struct {
	streams
	account    *cloud.Cloud
	kubernetes *rest.Config
}

// connected checks the options, and connects to both sides for as long as do takes.
func (o *options) connected(command *cobra.Command, do func(context.Context, sides) error) error {
	std := streams{in: command.InOrStdin(), out: command.OutOrStdout(), err: command.ErrOrStderr()}
	if err := o.check(); err != nil {
		return err
	}
	ctx := klog.NewContext(command.Context(), klog.Background())
	account, err := connect(ctx, *o)
	if err != nil {
		return err
	}
	defer account.Close()
	config, err := kubernetesConfig(*o)
	if err != nil {
		return err
	}
	return do(ctx, sides{std, account, config})
}

// with is connected with the doctor of what the command is about.
func (o *options) with(command *cobra.Command, do func(context.Context, physician, streams) error) error {
	return o.connected(command, func(ctx context.Context, s sides) error {
		journal, err := openJournal(o.journal, s.err)
		if err != nil {
			return err
		}
		defer journal.close()
		physician, err := o.physician(s.account, s.kubernetes, journal)
		if err != nil {
			return err
		}
		return do(ctx, physician, s.streams)
	})
}

// physician is the doctor of what the command is about.
func (o *options) physician(account *cloud.Cloud, config *rest.Config, journal *journal) (physician, error) {
	typed, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	rules := doctor.Rules{
		SafetyAge: o.safetyAge, Quarantine: o.quarantine, Now: o.now, Unclaimed: doctor.Unclaimed(o.unclaimed), Journal: journal.note,
	}
	if o.balancers {
		return doctor.NewBalancers(doctor.BalancersConfig{
			Rules: rules, Cloud: account, Kubernetes: typed, Cluster: plan.Cluster{ID: o.clusterID, Name: o.clusterName}, Class: o.class,
		})
	}
	untyped, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	return doctor.New(doctor.Config{
		Rules: rules, Cloud: account, ClusterID: o.clusterID, Kubernetes: typed, Dynamic: untyped, Driver: o.driverName,
	})
}

func (o *options) check() error {
	switch {
	case o.output != outputTable && o.output != outputJSON && o.output != outputYAML:
		return fmt.Errorf("invalid --output %q: must be table, json or yaml", o.output)
	case o.yes && !o.fix:
		return errors.New("--yes answers the questions of --fix; add --fix, or leave it out")
	case o.safetyAge < 0:
		return fmt.Errorf("invalid --safety-age %s: must not be negative", o.safetyAge)
	case o.quarantine < 0:
		return fmt.Errorf("invalid --quarantine %s: must not be negative", o.quarantine)
	case o.balancers && o.clusterName == "":
		return errors.New("--cluster-name is empty; give the name of the cluster as ccm has it, or leave it out")
	case !o.balancers && o.driverName == "":
		return errors.New("--driver-name is empty; give the name of the CSI driver, or leave it out")
	}
	switch unclaimed := doctor.Unclaimed(o.unclaimed); unclaimed {
	case doctor.UnclaimedReport, doctor.UnclaimedIgnore:
		return nil
	case "remove":
		return errors.New("invalid --unclaimed remove: what does not say that this cluster made it is never removed; use report or ignore")
	}
	return fmt.Errorf("invalid --unclaimed %q: must be report or ignore", o.unclaimed)
}

// treat examines, and goes on with what is proven if that is asked for.
func treat(ctx context.Context, physician physician, opts options, std streams) error {
	report, err := physician.Examine(ctx)
	if err != nil {
		return err
	}
	if !opts.fix {
		return finish(report, opts, std.out, nil)
	}
	var ask doctor.Ask
	if !opts.yes {
		// Questions go where they do not mix with JSON.
		if err := print(std.err, outputTable, report); err != nil {
			return err
		}
		ask = asker(ctx, std)
	}
	return finish(report, opts, std.out, report.Fix(ctx, ask))
}

// finish prints the report, also where fixing ended early: what was removed must be printed.
func finish(report *doctor.Report, opts options, out io.Writer, fixErr error) error {
	if err := print(out, opts.output, report); err != nil {
		return err
	}
	switch {
	case fixErr != nil:
		return fixErr
	case report.OneFailed():
		return errors.New("some changes failed, see above; run it again later")
	case report.Left() > 0:
		return errFindings
	}
	return nil
}

// asker puts a question for each finding. Ctrl-C ends it at once: what reads the answers is left to the end of the program, as nothing
// wakes it.
func asker(ctx context.Context, std streams) doctor.Ask {
	answers := make(chan string)
	go func() {
		defer close(answers)
		lines := bufio.NewScanner(std.in)
		for lines.Scan() {
			select {
			case answers <- lines.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	return func(f *doctor.Finding) (bool, error) {
		fmt.Fprintf(std.err, "%s %s? [y]es, [n]o, [q]uit: ", questions[f.Action], f.Words())
		var answer string
		select {
		case <-ctx.Done():
			fmt.Fprintln(std.err)
			return false, ctx.Err()
		case line, given := <-answers:
			if !given {
				fmt.Fprintln(std.err)
				return false, errors.New("--fix: there was no answer; answer the questions, or add --yes")
			}
			answer = strings.ToLower(strings.TrimSpace(line))
		}
		switch answer {
		case "y", "yes":
			return true, nil
		case "q", "quit":
			return false, doctor.ErrStop
		}
		return false, nil
	}
}

var questions = map[doctor.Action]string{
	doctor.ActionMark: "Mark", doctor.ActionQuarantine: "Put into quarantine", doctor.ActionRemove: "Delete", doctor.ActionRestore: "Restore",
}

// checkTimeout is how long the API may take to answer at start-up, retries included.
const checkTimeout = 30 * time.Second

// connect makes the UpCloud account, and asks whether it can be used.
func connect(ctx context.Context, opts options) (*cloud.Cloud, error) {
	config, err := cloud.ConfigFromEnv()
	if err != nil {
		return nil, err
	}
	if opts.credentialsDir == "" && config.Token == "" && config.Username == "" {
		return nil, errors.New("no UpCloud credentials: set UPCLOUD_TOKEN, or UPCLOUD_USERNAME and UPCLOUD_PASSWORD, or --credentials-dir")
	}
	config.CredentialsDir = opts.credentialsDir
	config.ClusterID = opts.clusterID
	config.UserAgent = "upcloud-doctor/" + programVersion()
	account, err := cloud.New(config)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if err := account.Check(ctx); err != nil {
		account.Close()
		return nil, err
	}
	return account, nil
}

// kubernetesConfig finds the API server as kubectl does.
func kubernetesConfig(opts options) (*rest.Config, error) {
	if opts.kubeconfig != "" {
		if _, err := os.Stat(opts.kubeconfig); err != nil {
			return nil, fmt.Errorf("--kubeconfig: %w", err)
		}
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = opts.kubeconfig
	rules.WarnIfAllMissing = false
	overrides := &clientcmd.ConfigOverrides{CurrentContext: opts.context}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides).ClientConfig()
	switch {
	case clientcmd.IsEmptyConfig(err):
		return nil, errors.New("no Kubernetes API server is given: set --kubeconfig, or run in a Pod of the cluster")
	case err != nil && opts.context != "" && opts.kubeconfig == "":
		return nil, fmt.Errorf("--context %s: %w", opts.context, oneLine(err))
	case err != nil:
		return nil, fmt.Errorf("--kubeconfig %s: %w", opts.kubeconfig, oneLine(err))
	}
	config.UserAgent = "upcloud-doctor/" + programVersion()
	return config, nil
}

// oneLine is an error whose text has no line breaks.
func oneLine(err error) error { return errors.New(strings.Join(strings.Fields(err.Error()), " ")) }
