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

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/doctor"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer"
)

// errFindings says that there is something to tell, and that it has been told.
var errFindings = errors.New("there are findings")

type streams struct {
	in       io.Reader
	out, err io.Writer
}

// physician is a doctor of something.
type physician interface {
	Examine(context.Context) (*doctor.Report, error)
	Fix(context.Context, *doctor.Report, doctor.Ask) error
}

// run examines, removes if that is asked for, and prints. Its errors are what the user reads: one line that names the
// setting and the remedy.
func run(ctx context.Context, opts options, std streams) error {
	if err := opts.check(); err != nil {
		return err
	}
	ctx = klog.NewContext(ctx, klog.Background())
	account, err := connect(ctx, opts)
	if err != nil {
		return err
	}
	defer account.Close()
	config, err := kubernetesConfig(opts)
	if err != nil {
		return err
	}
	physician, err := opts.physician(account, config)
	if err != nil {
		return err
	}
	return treat(ctx, physician, opts, std)
}

// physician is the doctor of what the command is about.
func (o *options) physician(account *cloud.Cloud, config *rest.Config) (physician, error) {
	typed, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	if o.balancers {
		return doctor.NewBalancers(doctor.BalancersConfig{
			Cloud: account, Kubernetes: typed, Cluster: loadbalancer.Cluster{ID: o.clusterID, Name: o.clusterName},
			SafetyAge: o.safetyAge, Unclaimed: doctor.Unclaimed(o.unclaimed),
		})
	}
	untyped, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	return doctor.New(doctor.Config{
		Cloud: account, Kubernetes: typed, Dynamic: untyped, Driver: o.driverName,
		SafetyAge: o.safetyAge, Unclaimed: doctor.Unclaimed(o.unclaimed),
	})
}

func (o *options) check() error {
	switch {
	case o.output != outputTable && o.output != outputJSON:
		return fmt.Errorf("--output: %q is not a form that there is: use table or json", o.output)
	case o.yes && !o.fix:
		return errors.New("--yes answers the questions of --fix: add --fix, or leave it out")
	case o.safetyAge < 0:
		return fmt.Errorf("--safety-age: %s is negative: use a duration such as 1h", o.safetyAge)
	case o.balancers && o.clusterName == "":
		return errors.New("--cluster-name is empty: give the name of the cluster as ccm has it, or leave it out")
	case !o.balancers && o.driverName == "":
		return errors.New("--driver-name is empty: give the name of the CSI driver, or leave it out")
	}
	switch unclaimed := doctor.Unclaimed(o.unclaimed); unclaimed {
	case doctor.UnclaimedReport, doctor.UnclaimedIgnore, doctor.UnclaimedRemove:
	default:
		return fmt.Errorf("--unclaimed: %q is not known: use report, ignore or remove", o.unclaimed)
	}
	if o.fix && o.clusterID == "" && o.unclaimed != string(doctor.UnclaimedRemove) {
		return errors.New("--fix removes what is this cluster's, and nothing says which that is: " +
			"set --cluster-id as " + o.program() + " has it, or --unclaimed remove if no other cluster uses the account")
	}
	return nil
}

// program is the one that makes what the command is about.
func (o *options) program() string {
	if o.balancers {
		return "ccm"
	}
	return "csi-driver"
}

// treat examines, and fixes if that is asked for.
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
		if report.Strange() {
			fmt.Fprintln(std.err, opts.caution())
		}
		ask = asker(std)
	}
	return finish(report, opts, std.out, physician.Fix(ctx, report, ask))
}

// caution is said where nothing shows that account and cluster belong together.
func (o *options) caution() string {
	if o.balancers {
		return "Caution: no Service of this Kubernetes knows any of these. " +
			"Make sure that --kubeconfig, --cluster-id and --cluster-name are of one cluster."
	}
	return "Caution: no PersistentVolume of this Kubernetes knows any of these storages. " +
		"Make sure that --kubeconfig and --cluster-id are of one cluster."
}

// finish prints the report, also where fixing ended early: what was removed must be told.
func finish(report *doctor.Report, opts options, out io.Writer, fixErr error) error {
	if err := print(out, opts.output, report); err != nil {
		return err
	}
	switch {
	case fixErr != nil:
		return fixErr
	case report.OneFailed():
		return errors.New("not everything could be removed: see above, and repeat it later")
	case report.Left() > 0:
		return errFindings
	}
	return nil
}

// asker puts a question for each finding.
func asker(std streams) doctor.Ask {
	answers := bufio.NewScanner(std.in)
	return func(f *doctor.Finding) (bool, error) {
		fmt.Fprintf(std.err, "Delete %s? [y]es, [n]o, [q]uit: ", f.Subject())
		if !answers.Scan() {
			fmt.Fprintln(std.err)
			return false, errors.New("--fix: there was no answer: answer the questions, or add --yes")
		}
		switch strings.ToLower(strings.TrimSpace(answers.Text())) {
		case "y", "yes":
			return true, nil
		case "q", "quit":
			return false, doctor.ErrStop
		}
		return false, nil
	}
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
